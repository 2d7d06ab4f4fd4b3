"""Turn a manifest into samples: reading, checking, images, the text on them, duplicates.

manifests.py     which formats and folders of manifests are read, and what makes a file unreadable
cutting.py       how an instruction is cut into dialogue, image places and offered labels (tasks.* of pack.yaml)
samples.py       which items are refused, and with which reason
refusals.py      the reason codes of refused items
images.py        which image files are refused (MAX_PIXELS), and where they may lie
known_files.py   when an image file is believed unchanged and not opened again (`images`)
image_hashes.py  when two files show one picture
signatures.py    how an item's text is compared; what a million items are compared by
duplicates.py    when two items are near duplicates, or one dialogue is the beginning of another
ocr.py           how images are shared out among the processes that read their text (`ocr` of pack.yaml, `texts`)
ocr_child.py     which OCR models read it, and in which order the lines stand
file_states.py   when a file or folder counts as changed
settings.py      where a manifest and its images are
"""
