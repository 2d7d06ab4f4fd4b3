"""The report of a correction."""
