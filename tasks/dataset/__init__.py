"""Merge everything into one training set, keep its versions, and write it in the formats of trainers.

settings.py     every setting of what is emitted, exported and published
sources.py      what is merged: a run's samples, the results of its stages, and reviewers' verdicts
decisions.py    the label an item is trained with, and which of several duplicates is kept  (emit.waiting)
reasons.py      which reasons are used               (emit.reason_share, emit.reasons_alike)
general_mix.py  which general-purpose conversations are mixed in  (emit.mix)
merge_plan.py   the decision about every item: duplicates, contamination, share of the mix, validation
                (emit.near_duplicates, emit.transductive, emit.validation_share)
merge.py        write the planned set in random order, and what is left out
conflicts.py    which duplicates with different labels a person reviews
versions.py     the digest of a set, the log of versions, and a snapshot of each
diff.py         the differences between two versions
drift.py        whether a new version is published, held back or needs approval  (drift, approval)
export/         the export formats                   (emit.export)
"""
