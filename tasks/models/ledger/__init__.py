"""Store every request to a model and its raw answer, so that nothing is paid for twice.

ledger.py  looking answers up and storing new ones   (`ledger:`, the file)
rows.py    the rows of an answer, and the checksum that shows whether it is damaged
file.py    the SQLite file: its tables, opening it, moving a corrupt file aside
tools.py   counting and deleting answers   (labelstill ledger stats, prune)
"""
