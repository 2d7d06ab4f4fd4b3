"""Make the demo: synthetic shop screens and dialogues, tiny Qwen2-VL models, and a comparison with the true labels.

dataset.py           write the three manifests, with wrong labels and broken items   (labelled, unlabelled, seed)
screens.py           draw ten kinds of screens
purchase_screens.py  draw five of these kinds: product, options, order, payment, parcel
blocks.py            draw blocks that several kinds of screens share
canvas.py            a small screen to draw on, which collects descriptions of what was drawn
dialogues.py         compose short dialogues with eight intents

tiny_models.py       train base, teacher and generator, or reuse them   (training)
checkpoint.py        write an untrained Qwen2-VL with 1.4 million parameters
lessons.py           make the training data of each model
side_by_side.py      share a training's batches between processes
training.py          train a model for a number of steps
evaluation.py        compare a finished run's decisions with the true labels
stand_in.py          answer in place of a reviewer, with the true labels
settings.py          DemoConfig, the parameters of the flow `demo`
"""
