"""Write what people read about a run.

card/        the card of a run: one page, and the README for a hub
correction/  the report of a correction
macros.html  what both pages lay out alike: tables, tiles, bars, charts
summary.py   the short summary of a run
charts.py    the card's plots
plots.py     what all plots share: colours and fonts of the page
fonts.py     fonts cut to a page's characters
"""
