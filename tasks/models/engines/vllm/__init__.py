"""Run vLLM as a child process, or ask vLLM servers on a cluster.

engine.py   starting it, answering through it, switching adapters
options.py  its command line and environment                (every key marked vllm)
process.py  starting, watching, restarting and ending it    (start_seconds)
log.py      summarising its log in one line, and naming the setting to change
"""
