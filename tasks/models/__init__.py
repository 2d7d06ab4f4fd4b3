"""Answer requests from the ledger or else by an engine, within the run's budget, and count the costs.

ask.py           asking: one engine is open at a time, nothing is asked twice, unreadable answers are asked for again
teacher.py       labelling items with a teacher, which describes each item first if the pack says so
settings.py      AskSettings (`ask:`), BudgetSettings (`budget:`)
pending.py       continuing while a batch API has not answered   (batch)
costs.py         counting what answers cost, and the budget that ends a run   (budget, prices)
gpu_hours.py     estimating GPU time and memory per card, before a run
model_sizes.py   how large a model is, from its configuration or its name
token_budget.py  counting a prompt's tokens, and shortening a prompt that is too long   (context_length)
qwen_vl.py       the generations of Qwen-VL: patch size, times of frames, kind of chat template   (model, base)
positions.py     the positions of a recording's tokens, which transformers gets wrong
processor.py     reading a checkpoint's tokenizer and chat template without torch   (tokenizer)
pins.py          the commit at which a model of the hub is loaded   (revision)
failures.py      deciding when so many questions fail that the run fails   (max_failed_share)
packages.py      explaining that a package which runs models is missing   (make env-light)
unanswered.py    the exceptions of requests that cannot be answered
image_cache.py   resizing images and frames to the size that models see   (min_pixels, max_pixels, `images:`)
ledger/          the file of all requests and their raw answers   (`ledger:`)
engines/         the engines that answer: vLLM, a server, transformers, fixed rules   (engine)
"""
