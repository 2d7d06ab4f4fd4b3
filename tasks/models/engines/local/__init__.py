"""Run Qwen-VL in this process, with transformers.

engine.py    answering in batches of similar length, and handling requests that fail   (generator.batch_size)
loading.py   loading a checkpoint and its adapter   (generator.dtype)
decoding.py  drawing the tokens of a batch's answers, with one KV cache
scoring.py   computing the probability of each label after the prompt
"""
