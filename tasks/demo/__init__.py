"""Make the demo: synthetic shop screens and dialogues, laptop-size Qwen2-VL models, and a comparison with the truth.

dataset.py           the three manifests, with wrong labels and broken items   (labelled, unlabelled, seed)
screens.py           ten kinds of screens, their captions and colours
purchase_screens.py  five of them: product, options, order, payment, parcel
blocks.py            blocks that several kinds of screens share
canvas.py            a small screen that collects descriptions of what was drawn on it
dialogues.py         eight intents as short dialogues

tiny_models.py       train base, teacher and generator, or reuse them   (training)
checkpoint.py        an untrained Qwen2-VL with 1.4 million parameters
lessons.py           what each model learns, and in which order
training.py          the training itself, limited by steps
evaluation.py        a finished run's decisions compared with the true labels
stand_in.py          a reviewer that knows the true labels
"""
