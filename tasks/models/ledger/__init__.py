"""Store every request to a model and its raw answer, so that nothing is paid for twice.

ledger.py  looking answers up and storing new ones   (`ledger:`, the file)
file.py    the SQLite file: its tables and rows, opening it, moving a corrupt file aside
tools.py   counting and deleting answers   (labelstill ledger stats, prune)
"""
