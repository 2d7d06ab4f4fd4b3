"""Ask people about labels and read their verdicts: the only wing that orders and limits what a person sees.

Correction, pseudo-labels and the merge hand over `ReviewCase`s with an expected gain, and read verdicts back.

queue.py         which cases are asked about, in which order; the queue's file
page.py          the page on which a person judges them: page.html, page.css, page.js, page.drawing.js
verdicts.py      importing and storing verdicts; which of them are still valid
label_studio.py  the same questions and answers in Label Studio's formats
"""
