"""Decide which of the teacher's labels of the pool to keep."""
