"""Make the demo: synthetic shop screens and dialogues, laptop-size Qwen2-VL models, and what a run on them was worth.

dataset.py           the three manifests, with label noise and broken items   (labelled, unlabelled, seed)
screens.py           ten kinds of screens and what is said of each
purchase_screens.py  five of them: product, options, order, payment, parcel
blocks.py            blocks that several kinds of screens share
canvas.py            a small screen that keeps a list of what was drawn on it
dialogues.py         eight intents as short dialogues

tiny_models.py       train base, teacher and generator, or find them          (training)
checkpoint.py        an untrained Qwen2-VL of 1.4 million parameters
lessons.py           what each model is taught, and in which order
training.py          the training itself, bounded by steps
evaluation.py        a finished run's decisions against the truth
stand_in.py          a reviewer who knows the truth
"""
