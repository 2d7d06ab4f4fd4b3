"""Write the card of a run: one self-contained page, and a README.md with the hub's metadata.

card.py        which files are written
facts.py       what a run's files say: counts and samples of items
rows.py        a few thousand rows of a Parquet file at a time
contents.py    what the drawn items show and say
confidence.py  how sure the teacher and the run are, counted by steps
page.py        the sections in their order
counts.py      the sections that are counts: tables and charts
items.py       one item: thumbnails, text, label, reason
evaluation.py  the students' scores
flow.py        the diagram of items through the stages
prompts.py     the prompts, rendered for one item each
warnings.py    what to read first
readme.py      the card as README.md    (emit.licence)
"""
