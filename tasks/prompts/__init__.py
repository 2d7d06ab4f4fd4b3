"""Turn a sample and a pack into a request, and the text of an answer into a prediction.

prompter.py       renders the pack's templates, and computes the key of a request in the ledger   (the pack's *.jinja)
turns.py          a request as chat turns, and which strings in it are escaped
recordings.py     how large a recording's frames are shown, what models are told of their times, and leaving some out
boxes.py          when a box is usable, and how it is converted to other grids
box_forms.py      how each generation of Qwen-VL writes a box
pointing.py       the boxes in an answer's reason, and on which of them the votes agree
chat_template.py  renders turns by a checkpoint's own chat template
parsing.py        reads label and reason from an answer: strictly, then with more and more lenient repairs
json_objects.py   finds JSON objects in the text of an answer
thinking.py       separates a model's thinking from its answer              (thinking_tokens)
again.py          the same question with another seed, or for the form of an answer after thinking
refusals.py       tells refusals to answer from reasons that say what a user cannot do
"""
