"""Decide when, where and how often work is done: the only folder that imports Prefect.

config.py         the keys of a run's configuration, and which stages it asks for
distill.py        runs the stages one after another, then writes the card and the summary
rationales.py     stage 1: ask for a reason for each given label
correction.py     stage 2: find and fix wrong labels
pseudo_labels.py  stage 3: label the pool and decide what to keep
emit.py           stage 4: merge everything into one training set, in each trainer's format
evaluate.py       measure on held-out items how much each step improves students
relabel.py        bring a set up to date, and publish the new version or hold it back       (drift, approval)
demo.py           the example: its data, its tiny models, its settings

stage.py          what all stages share: reading a set, reusing a finished result, writing the record
asking.py         ask a model in task runs, within the run's budget                         (shard_size, budget)
teacher_reasons.py  choose the reasons that students learn for labels of teachers           (rationales)
students.py       train and ask the fold students                                           (student)
runners.py        run shards on this machine or on a Ray cluster                            (runner)
ui.py             progress and tables in the web UI and on the terminal
api.py            wait while Prefect's API is unavailable
run_lock.py       allow one run per output folder; retry only errors that may be temporary    (output)

commands/         the `labelstill` command
service/          the Prefect server, workers, pages, alerts, the Prefect plugin
deploy/           systemd, container and Kubernetes files
"""
