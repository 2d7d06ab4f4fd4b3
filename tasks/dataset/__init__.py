"""Merge everything into one training set; its versions, diffs and exports."""
