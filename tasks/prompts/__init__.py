"""From a sample and a pack to a request, and from the answer's text to a prediction.

prompter.py  renders the pack's templates, and makes the key that the ledger answers by   (the pack's *.jinja)
turns.py     a request as chat turns, and which words in it are escaped
parsing.py   reads label and reason from what a model wrote: strict, then a ladder of repairs
"""
