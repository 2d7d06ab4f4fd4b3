"""Ask people about labels and read their verdicts. Only this package orders and limits what a person sees.

Rationales, correction, pseudo-labels and the merge pass in `ReviewCase`s with an expected gain, and read the verdicts.

queue.py         choose and order the cases that people are asked about, and write them to a file
page.py          write the page on which a person judges them, from page.html, page.css, page.js, page.drawing.js
recordings.py    which recordings the page plays, and which of their frames it shows
images.py        how large and in which format the page shows images
verdicts.py      import and store verdicts, and check which of them are still valid
label_studio.py  write the cases and read the verdicts in Label Studio's formats
"""
