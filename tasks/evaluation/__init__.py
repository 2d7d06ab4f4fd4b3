"""Compare students on held-out items."""
