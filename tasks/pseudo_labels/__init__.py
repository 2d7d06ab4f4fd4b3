"""Decide which of the teacher's labels for the pool to keep.

evidence.py             collect the evidence for a label from teacher, students and second teacher
                        (pseudo_labels.second_teacher)
calibration_targets.py  estimate the probability that the teacher's label of a labelled item is correct
trust.py                turn evidence into the probability that a label is correct, fitted to these estimates
decide.py               choose the labels to keep  (pseudo_labels.target_precision, .cap, .floor)
review_cases.py         choose the items that a person is asked about             (pseudo_labels.review_budget)
settings.py             the settings named here
"""
