"""The `labelstill` command, one file per command group. The work is done in the flows and in tasks/.

main.py         the command groups, and how an error ends a command
init.py         init
run.py          run, check, demo
check.py        what `check` reports: what a run would drop and ask
check_hours.py  what `check` says about GPU time, per step and card
relabel.py      relabel
evaluate.py     evaluate, compare
find_errors.py  find-errors
review.py       review
card.py         card
diff.py         diff
ledger.py       ledger
service.py      serve, stop, alerts
"""
