"""Ask an OpenAI-compatible server, and keep it full.

engine.py        requests drawn, prepared and kept in flight                  (concurrency)
client.py        which address is asked, and when a run gives up              (base_urls, patience_seconds)
retries.py       which failures are tried again, how often and after how long
capabilities.py  what the server can do, found out by tiny requests
chat.py          a request as a chat completion's body, and the reply's texts
conversation.py  one request from prompt to generation: fitted, sent, its labels weighed
label_tokens.py  label probabilities from single tokens                       (tokenizer)
"""
