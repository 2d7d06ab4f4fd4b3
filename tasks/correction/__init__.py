"""Find and fix wrong labels in the labelled set."""
