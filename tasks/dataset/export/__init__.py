"""Write the training set in the formats that trainers read.

To add a format, write a module here with `open_writer`, add its name to `Format` (tasks/dataset/settings.py), and the
function to exports.py.

exports.py        write a set in all requested formats in one pass       (emit.export.formats)
conversation.py   convert an example to the alternating turns that every trainer expects
files.py          write rows one by one, their provenance, and images    (emit.export.image_paths)
recordings.py     collect what trainers are told once for all recordings
llamafactory.py   LLaMA-Factory, also pairs of answers for DPO           (emit.export.max_tokens)
swift.py          ms-swift 4, also soft labels and pairs
swift2.py         ms-swift 2
qwen.py           Qwen's own fine-tuning script
vision_start.py   the tutorials with `<|vision_start|>`
trl.py            Parquet that contains the images, for trl and Hugging Face datasets, also pairs
labels.py         plain labels for spreadsheets, and predictions
ready.py          write training configurations beside the data  (emit.export.base, min_pixels, max_pixels, seed)
trainer_files.py  fill a template from templates/students/ to get a trainer's configuration
trainer_names.py  each trainer's names for the generations of Qwen-VL  (emit.export.base, student.base)
student_set.py    write the training set of a student that an external trainer trains
"""
