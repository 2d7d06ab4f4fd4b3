"""Decide when, where and how often work is done: the only folder that imports Prefect.

config.py         every key of a run's configuration, and which stages it asks for
distill.py        the whole way: which stages follow which, and what is written up at the end
rationales.py     stage 1: reasons for given labels
correction.py     stage 2: wrong labels found and fixed
pseudo_labels.py  stage 3: labels for the pool, and which to keep
emit.py           stage 4: one training set, in each trainer's format
evaluate.py       what each step is worth, on held-out items
relabel.py        a set brought up to date; when a new version is published or put before a person (drift, approval)
demo.py           the example: its data, its tiny models, its settings

stage.py          what stages share: one reading of each set, a stage's folder and its record
asking.py         prompts and images prepared, questions to a model in shards, the budget  (shard_size, budget)
students.py       students trained one fold per task run                                     (student)
runners.py        where shards run: on this machine or on a Ray cluster                       (runner)
ui.py             progress and tables in the web UI, and the live line on a terminal
api.py            how long a run waits for Prefect's API when it is away
run_lock.py       one run per output folder, and which errors are worth another attempt       (output)

commands/         the `labelstill` command
service/          server, workers, pages, alerts, the Prefect plugin
deploy/           unit, container and Kubernetes files
"""
