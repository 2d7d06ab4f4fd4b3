"""Merge everything into one training set, keep its versions, and write it as trainers read it.

settings.py    every setting of what is emitted, exported, published
sources.py     what is merged: a run's samples, and what its stages and people said about each
decisions.py   the label an item is taught with, and which of equal items stands   (emit.waiting)
reasons.py     which reasons are taught                                 (emit.reason_share, emit.reasons_alike)
general_mix.py which general-purpose conversations are mixed in         (emit.mix)
merge_plan.py  what becomes of every item: duplicates, contamination, share of the mix, validation
               (emit.near_duplicates, emit.transductive, emit.validation_share)
merge.py       write the planned set, shuffled; what is left out, and why
conflicts.py   which duplicates with different labels a person is asked about
versions.py    the digest of a set, the log of versions, and a snapshot of each
diff.py        what differs between two versions
drift.py       when a new version is published, held back or put before a person  (drift, approval)
export/        the formats                                              (emit.export)
"""
