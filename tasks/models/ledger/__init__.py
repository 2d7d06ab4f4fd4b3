"""Every question to a model and its raw answer, kept by the question's key, so that nothing is paid twice.

ledger.py  what is looked up, what is kept, and when it is written   (`ledger:`, the file)
file.py    the SQLite file: tables, rows, opening, setting a corrupt one aside
tools.py   figures of a ledger, and deleting answers   (labelstill ledger stats, prune)
"""
