"""Compare students trained on a run's training set with students trained on raw labels, on held-out items.

settings.py  the settings under `evaluate:`
results.py   a finished run's results; whether its training set was kept free of evaluation items
variants.py  the training set of each variant, from raw labels to the emitted set       (evaluate.variants)
trials.py    one LoRA student per variant and seed, all with the same number of steps (evaluate.seeds, student.steps)
fold_team.py the run's fold students as one: fused, or their mean answer      (student.folds)
lora_students.py  ask the trained LoRA students
probe_trials.py  one probe per variant and seed                                        (evaluate.seeds)
test_set.py  true labels of held-out items; the labels predicted for a test set         (evaluate.truth, test)
pointing.py  when a reason's box counts as one of the item's       (boxes of pack.yaml)
scores.py    accuracy, F1 and lift, with intervals
table.py     the report as scores.json and as a Markdown table; comparing two runs
"""
