"""Hard cases and faults, written by people who had not seen what is to find them."""
