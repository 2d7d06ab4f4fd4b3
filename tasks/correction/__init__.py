"""Find and fix wrong labels in the labelled set.

judgements.py          what students and teacher say about each label, as arrays: from files or from predictions
suspicion.py           how strongly that contradicts each given label
calibration.py         suspicion -> probability, fitted to a person's verdicts
gate.py                which items the audit asks about  (correction.audit),
                       and when a label may change without a person  (correction.gate_level)
decide.py              keep, relabel, drop or review  (correction.teacher_share, .target_precision, .review_budget)
outcome.py             the decisions as records, questions to a person, figures and lines of JSON
corrected_manifest.py  the labelled manifests written again with the corrected labels
settings.py            the settings named here
"""
