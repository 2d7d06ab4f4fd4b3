"""Run vLLM as a child process, or ask the ones that run on a cluster.

engine.py   open it, ask through it, turn to another adapter
options.py  its command line and environment                (every key marked vllm)
process.py  start it, wait for it, bring it back, end it    (start_seconds)
log.py      what its log says in one line, and which setting to change
"""
