"""Ask why each labelled item has its label, and keep the reasons that a student can learn from.

reasoner.py   asks for reasons, judges them, and asks again with a complaint    (ask.attempts, rationales.support)
gate.py       what is wrong with one reason: its length, wording, leaks of the label   (the pack's reason_max_chars)
judge.py      which reasons another model refuses, and how often people agree with it   (rationales.judge; judge.jinja)
teacher_reasons.py   removes bad reasons that teachers gave together with their labels
grounding.py  whether the boxes of a reason hold what it says, and not nearly all else   (`ocr`, `boxes` of pack.yaml)
diversity.py  which reasons are too similar, and how varied a set is   (rationales.alike)
words.py      reads the patterns of leaks and empty phrases of a language   (templates/words/<language>.yaml)
settings.py   RationaleSettings, the `rationales:` key
"""
