"""Training sets in the formats that trainers read; each room enforces its reader's own rules."""
