"""Answer with vLLM, which runs as a child process or on the nodes of a cluster.

engine.py   starting vLLM, answering through it, switching adapters
options.py  building its command line and environment   (every key marked vllm)
process.py  starting, watching, restarting and ending the server process
weights.py  fetching a hub model's files before the start
log.py      summarising its log in one line that names the setting to change
"""
