"""Write the report of a correction: one self-contained page, and its figures as JSON.

report.py            which files are written
measures.py          decisions counted and measured
figures.py           the figures' types; what stands in report.json
page.py              the sections in their order
tables.py            the tables
charts.py            the plots
cleanlab_compare.py  what cleanlab says of the same probabilities, where it is installed
"""
