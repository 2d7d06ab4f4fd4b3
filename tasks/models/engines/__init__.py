"""The engines that answer requests: each takes a stream of requests and yields one generation per request.

engine.py    the protocol that every engine implements; opening the engine that a spec names
spec.py      EngineSpec: the keys of `generator:` and `teacher:`, and prices
identity.py  naming the weights that answer; the name is part of every request's key
scripted.py  an engine that answers by fixed rules, for dry runs and tests   (engine: scripted)
processes.py ending process trees; starting servers and trainers that never outlive this process
child.py     Python work in a child process, whose GPU memory is free when it ends
gpus.py      the GPUs that may be used, and waiting until their memory is free
batch/       an OpenAI-compatible server's batch API, at half price   (engine: server, batch)
local/       the model runs here, with transformers   (engine: local)
server/      any OpenAI-compatible server   (engine: server)
vllm/        a vLLM server that is started and watched here   (engine: vllm)
ray/         vLLM on a Ray cluster   (runner: {kind: ray})
"""
