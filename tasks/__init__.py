"""What labelstill does: plain typed functions and small classes, free of Prefect.

records.py      the types that pass between the folders below
media.py        texts, images, recordings and boxes, of which items consist; the base of all records
errors.py       the exceptions
settings.py     the base of every settings model

storage/        stage folders and their records, Parquet rows, atomic writes, JSON Lines
packs/          what a labelling task is: label set, glosses, options, columns            (pack)
items/          from a manifest to samples: reading, checking, images, OCR, duplicates    (labelled, unlabelled)
prompts/        from a sample to a request, and from the answer's text to a prediction
models/         asking a model: engines, ledger, token budget, costs                      (generator, teacher)
rationales/     asking for reasons, which to keep, how varied they are                    (rationales)
students/       folds, training, prediction                                               (student)
evaluation/     students compared on held-out items                                       (evaluate)
correction/     wrong labels found and fixed                                              (correction)
pseudo_labels/  which labels of the pool are kept                                         (pseudo_labels)
dataset/        one training set, its versions and its exports                            (emit, drift, approval)
review/         what a person is asked, in which order, and what they answered
report/         the card of a run, the report of a correction
start/          a pack and a run.yaml for new data
demo/           synthetic data and laptop-size models
"""
