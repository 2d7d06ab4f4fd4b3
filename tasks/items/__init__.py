"""Read the items of a manifest as samples: check items, images and recordings, read text on images, find duplicates.

manifests.py       which formats and folders of manifests are read
json_manifests.py  how items are read from JSON and JSON Lines, and what makes such a file unreadable
tables.py          how items are read from CSV and Parquet, and which columns must be there; images inside Parquet files
raw_items.py       what an unchecked item is, which keys count as unread, and which encodings of text are refused
foreign_files.py   which files of other programs are recognised, and which column is suggested for a missing one
cutting.py         how an instruction is split into dialogue, image positions and offered labels (tasks.* of pack.yaml)
boxes.py           in which forms boxes are read, and which of them are refused (columns.boxes of pack.yaml)
coco.py            how a COCO file becomes items
samples.py         which items are refused, and for which reason
refusals.py        the reason codes of refused items
ids.py             how items are named, and which of those with the same id are kept
image_names.py     where the file of an image or a recording is looked for, and what is suggested if it is not there
images.py          which image files are refused (MAX_PIXELS)
pixels.py          how an image's pixels are shown to models, and which files a trainer would show otherwise
videos.py          which recordings are refused, and what is done with those that are given as image files
video_frames.py    which frames of a recording are taken, and how they are decoded and stored (`video`)
key_frames.py      which frames of a recording are compared with others, and read for text
frame_cache.py     where the frames of recordings are kept (`images`)
known_files.py     when a file counts as unchanged and is not opened again (`images`)
image_hashes.py    when two files show the same picture
signatures.py      how texts are normalised, and the compact signatures by which a million items are compared
duplicates.py      when two items are near-duplicates, or one dialogue is the beginning of another
ocr.py             how images are distributed over the processes that read their text (`ocr` of pack.yaml, `texts`)
ocr_child.py       the program that reads images, and the order of the lines
ocr_settings.py    which OCR models and settings are used
ocr_detection.py   where on an image text is, and at which size it is looked for
ocr_recognition.py how a line of text is read, and when it is read again
file_states.py     when a file or folder counts as changed
smoke.py           which items a smoke run uses (`limit`)
settings.py        where a manifest and its images are; how many frames stand for a recording
"""
