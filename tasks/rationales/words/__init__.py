"""Word lists of the rationale gate, per language."""
