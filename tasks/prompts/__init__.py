"""Turn a sample and a pack into a request, and the text of an answer into a prediction.

prompter.py  renders the pack's templates, and computes the key of a request in the ledger   (the pack's *.jinja)
turns.py     a request as chat turns, and which strings in it are escaped
parsing.py   reads label and reason from an answer: strictly, then with more and more lenient repairs
"""
