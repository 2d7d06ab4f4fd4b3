"""What answers: requests go in, one generation per request comes out.

engine.py    the protocol that every engine meets; opens the engine that a spec names
spec.py      EngineSpec: the keys of `generator:` and `teacher:`, and prices
identity.py  which weights answer, in every request's key
scripted.py  answers by rule, for tests and dry runs   (engine: scripted)
local/       transformers in this process   (engine: local)
server/      any OpenAI-compatible server   (engine: server)
vllm/        a `vllm serve` that is started and watched   (engine: vllm)
ray/         vLLM on a Ray cluster   (runner: {kind: ray})
"""
