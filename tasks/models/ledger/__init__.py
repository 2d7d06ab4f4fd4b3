"""Every request to a model and its raw answer, by the request's key, so that nothing is paid for twice.

ledger.py  looking answers up, which ones are kept, and when they are written   (`ledger:`, the file)
file.py    the SQLite file: tables, rows, opening it, setting a corrupt one aside
tools.py   statistics of a ledger, and deleting answers   (labelstill ledger stats, prune)
"""
