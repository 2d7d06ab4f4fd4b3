"""Run Qwen-VL with transformers, in this process or, where there is a GPU, in a child process.

engine.py    answering in batches of similar length, and handling requests that fail   (generator.batch_size)
child_engine.py  the same engine in a child process, whose end frees the GPU
loading.py   loading a checkpoint and its adapter   (generator.dtype)
decoding.py  drawing the tokens of a batch's answers, with one KV cache
scoring.py   computing the probability of each label after the prompt
"""
