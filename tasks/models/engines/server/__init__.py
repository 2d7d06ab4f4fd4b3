"""Ask an OpenAI-compatible server, and keep it busy.

engine.py        drawing and preparing requests, keeping them in flight       (concurrency)
client.py        which address is asked, and when a run gives up              (base_urls, patience_seconds)
retries.py       which failures are retried, how often and after how long
capabilities.py  what the server can do, tested by tiny requests
chat.py          a request as the body of a chat completion, and its reply as texts
conversation.py  one request from prompt to generation: shortening, sending, weighing its labels
label_tokens.py  label probabilities from single tokens                       (tokenizer)
"""
