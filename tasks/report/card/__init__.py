"""Write the card of a run: one self-contained page, and a README.md with the hub's metadata.

card.py      which files are written
facts.py     what a run's files say: counts, and which items are drawn as examples
rows.py      a few thousand rows of a Parquet file at a time
page.html    the page: its sections in their order, and their words
item.html    how an item is shown: pictures, text, label, reason
card.css     its layout; colours, text and tables are those of shared.css
page.py      the values that page.html lays out
sections.py  the rows of its tables, and its charts
items.py     the texts and pictures of the drawn items
flow.py      the diagram of items through the stages
prompts.py   the prompts, rendered for one item of each task
warnings.py  what to read first
readme.py    the card as README.md    (emit.licence)
"""
