"""Find and fix wrong labels in the labelled set.

judgements.py          read the students' and the teachers' probabilities, from files or predictions, into arrays
suspicion.py           measure how strongly these probabilities contradict each given label
calibration.py         turn suspicion into the probability that a label is wrong, fitted to a person's verdicts
gate.py                choose the items that a person audits  (correction.audit), and decide
                       whether labels may change without a person  (correction.gate_level)
decide.py              decide to keep, relabel, drop or review each item
                       (correction.target_precision, .review_budget)
overlap.py             rank pairs of labels whose definitions may overlap
outcome.py             convert the decisions to records, review cases, figures and rows for JSON
listed_items.py        choose the review cases of items known only from files of probabilities
corrected_manifest.py  write copies of the labelled manifests with the corrected labels
settings.py            the settings named here
"""
