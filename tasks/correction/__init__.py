"""Find and fix wrong labels in the labelled set.

judgements.py          the students' and the teacher's probabilities as arrays, read from files or predictions
suspicion.py           how strongly these contradict each given label
calibration.py         suspicion -> probability that a label is wrong, fitted to a person's verdicts
gate.py                which items a person audits  (correction.audit),
                       and when a label may change without a person  (correction.gate_level)
decide.py              keep, relabel, drop or review  (correction.teacher_share, .target_precision, .review_budget)
outcome.py             the decisions as records, questions to a person, figures and rows for JSON
corrected_manifest.py  a copy of the labelled manifests with the corrected labels
settings.py            the settings named here
"""
