"""The card of a run."""
