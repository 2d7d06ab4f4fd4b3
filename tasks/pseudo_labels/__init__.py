"""Decide which of the teachers' labels for the pool to keep.

panel.py                have several teachers answer: who is asked next, at which price  (teachers, teachers.ask)
joint_label.py          choose one label from the answers of several teachers
evidence.py             collect the evidence for a label from teachers and students
calibration_targets.py  estimate the probability that the teachers' label of a labelled item is correct
trust.py                turn evidence into the probability that a label is correct, fitted to these estimates
decide.py               choose the labels to keep  (pseudo_labels.target_precision, .cap, .floor)
review_cases.py         choose the items that a person is asked about             (pseudo_labels.review_budget)
settings.py             the settings named here
"""
