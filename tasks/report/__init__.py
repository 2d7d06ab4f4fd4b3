"""Write what people read about a run.

card/        the card of a run: one page, and the README for a hub
correction/  the report of a correction
macros.html  tables, tiles, bars and charts of both pages
shared.css   colours, text and tables of both pages
summary.py   the short summary of a run
charts.py    the card's charts
plots.py     what all charts share: colours and fonts of the page
fonts.py     embedded fonts with only the characters of a page
"""
