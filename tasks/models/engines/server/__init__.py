"""Answer with an OpenAI-compatible server, and keep the server busy.

engine.py        preparing requests and keeping the server busy
client.py        choosing the address to ask, and giving up when none answers (base_urls)
pacing.py        how many requests may be in flight, and when one is overdue  (concurrency)
retries.py       deciding which failures are retried, how often and after what wait
capabilities.py  testing by tiny requests what the server can do
video_probe.py   testing whether the server shows recordings as they are sent
chat.py          building the body of a chat completion, and reading the reply
conversation.py  taking one request from prompt to generation: shortening, sending, label probabilities
label_tokens.py  computing label probabilities from single tokens             (tokenizer)
"""
