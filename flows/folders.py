"""Folders under a run's `output` that more than one flow reads."""

from pathlib import Path

CANDIDATE = "candidate"
"""A merged set that is not published."""
REVIEW_POOL = Path("review_pool/review")
"""Uncertain items of the pool: a run's folder of its own for `labelstill review`, which looks for `review` in what it
is given."""
CONFLICTS = Path("review_conflicts/review")
"""Conflicting duplicates. `labelstill review import <output>/review_conflicts FILE` takes in what people said; the next
run applies it."""
