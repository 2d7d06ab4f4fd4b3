"""Ask models: ledger first, within the run's budget, and add up what it costs.

ask.py           one engine open at a time, nothing asked twice, unreadable answers asked again
teacher.py       a teacher labels items: described first where the pack says so, then by votes
settings.py      VoteSettings (votes, temperature, max_tokens, attempts), BudgetSettings (`budget:`)
costs.py         what answers cost, and a budget that ends the asking   (budget, prices)
token_budget.py  how many tokens a prompt has, and what is taken from one that is too long   (context_length)
unanswered.py    why a request gets no answer, and the outcome it then has
image_cache.py   images at the size that models see   (min_pixels, max_pixels, `images:`)
ledger/          every question and its raw answer   (`ledger:`)
engines/         what answers: vLLM, a server, transformers, a script   (engine)
"""
