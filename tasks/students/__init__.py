"""Train students on the labelled set itself, each without one fold, and ask them about items that they did not see.

settings.py          what `student:` may say, one model per kind
folds.py             which items are held out together, and who is asked about what     (student.folds, student.repeats)
fold_students.py     what each fold's student is trained on, and the folder named by it  (student.seed)
student_folder.py    when a student is whole, and what its record says
asking.py            by which engine a student is asked, and for what                    (student.scoring_engine)
worker_pool.py       processes that train students side by side                         (student.parallel)
loss_curves.py       the loss curve in student.json and loss.png

lora.py              train a LoRA student with trl                    (student.kind: lora, student.epochs, …)
lora_dataset.py      which items it is taught, with which reasons     (student.reasons)
lora_checkpoints.py  what a killed training goes on from              (student.checkpoint_seconds)

probe.py             train and ask a probe: a classifier on frozen features   (student.kind: probe)
probe_features.py    what is seen of texts and images                         (student.ngrams, student.images)
probe_classifier.py  weights, logistic regression and calibration             (student.regularisation)

external.py          have LLaMA-Factory or ms-swift train a student   (student.kind: external, student.trainer, …)
external_process.py  run the trainer, and never leave it running      (student.timeout_seconds)
external_output.py   the checkpoint and the log that it leaves
"""
