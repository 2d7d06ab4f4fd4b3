"""Write what people read about a run.

card/        the card of a run: one page, and the README for the Hugging Face Hub
correction/  the report of a correction
macros.html  tables, tiles, bars and charts for the card and the correction report
shared.css   colours, text and tables for the same two pages
summary.py   the short summary of a run
charts.py    the card's charts
pictures.py  how large pages show images
plots.py     what all charts share: the colours and fonts of the pages
"""
