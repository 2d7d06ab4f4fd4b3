"""Write the training set in the formats that trainers read.

A new format is a file here with `open_writer`, and its name in `Format` (tasks/dataset/settings.py).

exports.py        write a set in every format that is asked for, in one pass  (emit.export.formats)
conversation.py   an example as the alternating turns that every reader wants; why a format can't hold one
files.py          rows one by one, provenance, names of images                (emit.export.image_paths)
llamafactory.py   LLaMA-Factory                                               (emit.export.max_tokens)
swift.py          ms-swift 4
swift2.py         ms-swift 2
qwen.py           Qwen's own fine-tuning script
vision_start.py   the tutorials with `<|vision_start|>`
trl.py            Parquet with the images in it, for trl and Hugging Face datasets
labels.py         plain labels, and predictions
ready.py          ready training configurations beside the data  (emit.export.base, min_pixels, max_pixels, seed)
trainer_files.py  a trainer's configuration, filled from a template of templates/students/
student_set.py    the set that an external trainer's student is trained on
"""
