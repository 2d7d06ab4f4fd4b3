"""Decide which of the teacher's labels of the pool to keep.

evidence.py             evidence for a label from teacher, students and second teacher
                        (pseudo_labels.ask_students, .second_teacher)
calibration_targets.py  how probably the teacher's label of a labelled item is right
trust.py                evidence -> probability that a label is right, fitted to the calibration targets
decide.py               what is kept, how many per class  (pseudo_labels.target_precision, .assurance, .cap, .quotas,
                        .floor), and which of the rest a person is asked about  (pseudo_labels.review_budget)
settings.py             the settings named here
"""
