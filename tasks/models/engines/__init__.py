"""The engines that answer requests: each takes a stream of requests and returns one generation per request.

engine.py    the protocol that every engine implements; opening the engine that a spec names
spec.py      EngineSpec: the keys of `generator:` and `teacher:`, and prices
identity.py  which weights answer; part of every request's key
scripted.py  answers by fixed rules, for tests and dry runs   (engine: scripted)
processes.py ending process trees; servers and trainers that never outlive this process
local/       transformers in this process   (engine: local)
server/      any OpenAI-compatible server   (engine: server)
vllm/        a `vllm serve` that is started and watched   (engine: vllm)
ray/         vLLM on a Ray cluster   (runner: {kind: ray})
"""
