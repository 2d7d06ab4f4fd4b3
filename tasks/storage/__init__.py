"""Write the results of a stage to disk; each file is written completely or not at all.

stages.py        writing a stage's folder, finding out whether it may be reused; check that kept + dropped = input
stage_record.py  the fields of record.json, with the costs of a stage's answers
failure.py       the message of a run that failed because of its models
rows.py          reading and writing records as Parquet files
files.py         replacing files atomically, and recognising the errors of a full disk
json_lines.py    reading and writing JSON Lines, with errors that name file and line
html.py          rendering HTML pages from Jinja templates, with every value escaped
fonts.py         embedding fonts in pages, with only the characters that a page shows
yaml_files.py    how YAML is read (UTF-8, no duplicate keys), and how wrong keys are explained
digest_cache.py  SQLite caches that map a file's digest to results (in the folders `images` and `texts`)
"""
