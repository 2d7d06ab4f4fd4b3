"""Write the report of a correction: one self-contained page, and its figures as JSON.

report.py   writes the files, and renders the page (page.html)
figures.py  computes the figures in report.json from the decisions
charts.py   draws the plots
"""
