"""Answer with a batch API: questions are sent as files at half price and answered within a day.

engine.py     sending what is not sent yet, and taking the answers that are there   (batch)
book.py       the record of files, batches and questions that survives a kill at any point
writing.py    a question as the lines of a file
sending.py    filling files with lines, and submitting them
collecting.py reading the files of answers, whatever is wrong with them
provider.py   the HTTP calls of `/files` and `/batches`; a provider's limits
weighing.py   label probabilities from the alternatives that an API reports for each token
"""
