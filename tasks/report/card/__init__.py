"""Write the card of a run: one self-contained page, and a README.md with metadata for the Hugging Face Hub.

card.py      which files are written
facts.py     reads from a run's files: counts, and a few items as examples
rows.py      reads Parquet files a few thousand rows at a time
page.html    the page: the order and texts of its sections
item.html    how an item is shown: pictures, text, label, reason
card.css     the page's layout; shared.css sets colours, text and tables
page.py      the values that page.html shows
sections.py  the rows of the page's tables, and its charts
items.py     the texts and pictures of the example items
flow.py      the diagram of items through the stages
prompts.py   the prompts, rendered for one item of each task
warnings.py  the warnings at the top of the page
readme.py    the card as README.md    (emit.licence)
"""
