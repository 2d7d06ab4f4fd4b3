"""Ask models: first the ledger, then an engine, within the run's budget; count the costs.

ask.py           one engine open at a time, nothing asked twice, unreadable answers asked for again
teacher.py       labelling items with a teacher: description first if the pack asks for it, then votes
settings.py      VoteSettings (votes, temperature, max_tokens, attempts), BudgetSettings (`budget:`)
costs.py         what answers cost, and the budget that ends a run   (budget, prices)
token_budget.py  how many tokens a prompt has, and what is removed from one that is too long   (context_length)
unanswered.py    why a request cannot be answered, and the outcome that it then has
image_cache.py   images at the size that models see   (min_pixels, max_pixels, `images:`)
ledger/          every request and its raw answer   (`ledger:`)
engines/         what answers: vLLM, a server, transformers, a script   (engine)
"""
