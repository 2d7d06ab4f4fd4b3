"""Write the report of a correction: one self-contained page, and its figures as JSON.

report.py   which files are written; the page (page.html)
figures.py  the figures measured from the decisions: the content of report.json
charts.py   the plots
"""
