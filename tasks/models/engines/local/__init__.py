"""Qwen-VL by transformers, in this process.

engine.py    batches of similar length, and what becomes of an item that fails   (generator.batch_size)
loading.py   opens checkpoint and adapter   (generator.dtype, .device_map)
decoding.py  draws tokens over one KV cache
scoring.py   how likely each label is after the prompt
"""
