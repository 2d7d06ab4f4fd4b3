"""`make bench-correction`: label correction on noisy sets made here, and on real ones where present.

Written from the command's contract alone, without a look at how it finds errors: nothing here is tuned to it.
"""
