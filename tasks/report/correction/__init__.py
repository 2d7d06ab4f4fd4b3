"""Write the report of a correction: one self-contained page, and its figures as JSON.

report.py   which files are written, and how the page (page.html) explains the gate
figures.py  what is counted and measured of the decisions: the content of report.json
charts.py   the plots
"""
