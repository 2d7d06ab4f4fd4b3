"""Train students on the labelled set, each without one fold, and have them predict items that they did not see.

settings.py          the `student:` settings, one model per kind
folds.py             which items are held out together, and which student predicts what  (student.folds, .repeats)
fold_students.py     the training of each fold's student, and its folder                 (seed)
student_folder.py    when a student's folder is complete, and the record in it
asking.py            the engine that a student is asked with, and the questions          (student.scoring)
worker_pool.py       the processes that train students, one per GPU                      (student.parallel)
loss_curves.py       the loss curve in student.json and loss.png

lora.py              what a LoRA student is trained on, and its name  (student.kind: lora, student.reasons)
lora_training.py     train it with trl                                (student.epochs, .batch_size, …)
lora_memory.py       whether a GPU has enough memory for it
lora_collator.py     make trl's batches with recordings
lora_dataset.py      the rows that it is trained on
soft_loss.py         learn probabilities of labels                      (student.loss)
fusion.py            fuse several LoRA students into one adapter
lora_checkpoints.py  checkpoints from which training that was killed resumes

probe.py             train a probe, a classifier on frozen features, and predict (student.kind: probe)
probe_features.py    the features of texts and images                         (student.images)
probe_embeddings.py  image features from a model's vision tower               (student.embedding_model)
probe_classifier.py  the models of a task and the weights of their scores
probe_trees.py       trees as arrays

external.py          train a student with LLaMA-Factory or ms-swift    (student.kind: external, student.trainer, …)
external_process.py  run the trainer, and never leave it running
external_output.py   find its checkpoint and read its logs
"""
