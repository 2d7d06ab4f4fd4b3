"""Write the results of a stage to disk, each file whole or not at all.

stages.py        when a stage's folder is complete and may be reused; checks that kept + dropped = input
stage_record.py  the fields of record.json, with the costs of a stage's answers
rows.py          the Parquet column of each field of a record
files.py         atomic replacement of files, and which errors mean a full disk
json_lines.py    reading and writing JSON Lines, with errors that name file and line
html.py          how values get into an HTML page: Jinja templates, escaped
yaml_files.py    reading YAML: UTF-8, no duplicate keys
digest_cache.py  the SQLite caches of results by file digest (in the folders `images` and `texts`)
"""
