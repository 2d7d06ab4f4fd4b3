"""Measure whether a student taught on what a run made is better, on held-out items.

settings.py  what `evaluate:` may say
results.py   what a finished run left that can be taught, and whether it kept the held-out items out
variants.py  what a student is taught in each step from raw labels to the emitted set   (evaluate.variants)
trials.py    one student per variant and seed, all with the same number of steps        (evaluate.seeds, evaluate.steps)
test_set.py  true labels of held-out items; the label predicted for each test item      (evaluate.truth, test)
scores.py    accuracy, F1 and lift, with their intervals
table.py     the report as scores.json and as a Markdown table; two runs compared
"""
