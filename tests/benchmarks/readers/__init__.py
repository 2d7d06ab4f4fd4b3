"""Each export read back through the very reader that it is for, in an environment of its own."""
