"""Ask why each labelled item has its label, and keep the reasons that teach something.

reasoner.py   asks, has the answers judged, and asks again with the complaint   (rationales.attempts, .support)
gate.py       what is wrong with one reason: its length, wording, leaks of the label   (the pack's reason_max_chars)
diversity.py  which reasons are too alike, and how varied a set is   (rationales.alike, .opening_share)
words.py      reads what a language's leaks and empty phrases are   (templates/words/<language>.yaml)
settings.py   RationaleSettings, the `rationales:` key
"""
