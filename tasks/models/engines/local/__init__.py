"""Qwen-VL by transformers, in this process.

engine.py    batches of similar length, and what happens to a request that fails   (generator.batch_size)
loading.py   loading checkpoint and adapter   (generator.dtype, .device_map)
decoding.py  drawing tokens over one KV cache
scoring.py   the probability of each label after the prompt
"""
