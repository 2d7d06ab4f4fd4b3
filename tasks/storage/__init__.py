"""Keep what a stage makes on disk: whole or not at all, named when the disk refuses.

stages.py        when a stage's folder is finished and may be reused, and that kept + dropped = input
stage_record.py  what record.json holds, and what a stage's answers cost
rows.py          which Parquet column a record's field becomes
files.py         how a file is replaced whole, and what counts as a full disk
json_lines.py    how JSON Lines are read and written, and how a faulty line is named
html.py          how values get into an HTML page: Jinja templates, escaped
yaml_files.py    how YAML is read: UTF-8, no key twice
digest_cache.py  what is kept about files by digest (under `images` and `texts`)
"""
