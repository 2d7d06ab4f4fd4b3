"""Merge all results into one training set, record its versions, and write it in the formats that trainers read.

settings.py     the settings of the training set, its exports and its publication
sources.py      read what is merged: a run's samples, the results of its stages, and reviewers' verdicts
decisions.py    decide each item's label, and which of several duplicates is kept  (emit.waiting)
reasons.py      choose the reasons to train on       (emit.reason_share, rationales.alike)
teacher_lessons.py  the teacher's probabilities and pairs of its reasons, for students
general_mix.py  draw general-purpose conversations to mix in  (emit.mix)
merge_plan.py   decide about every item: duplicates, contamination, share of the mix, validation
                (emit.near_duplicates, emit.transductive, emit.validation_share)
merge.py        write the planned set in random order, and the list of the items left out
conflicts.py    choose the duplicates with different labels that a person reviews
versions.py     compute the digest of a set, keep the log of versions and a snapshot of each version
publication.py  publish a version and go back to an earlier one
diff.py         compare two versions
drift.py        decide whether a new version is published, held back or needs approval  (drift, approval)
export/         the export formats                   (emit.export)
"""
