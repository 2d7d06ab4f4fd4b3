"""Ask people about labels, and read what they say: the only place that orders and cuts what a person sees.

Correction, pseudo-labels and the merge hand over `ReviewCase`s with an expected gain, and read verdicts back.

queue.py         which cases are asked and in which order; the queue's file
page.py          the page on which they are judged: page.html, page.css, page.js, page.drawing.js
verdicts.py      what people said: importing it, and which of it still holds
label_studio.py  the same questions and answers in Label Studio's formats
"""
