"""Ask a question again: with another seed, or to put an answer given after thinking into the required format.

Some servers cannot enforce a JSON schema while a model thinks. The model then answers freely. If that answer cannot be
read, the model is asked once more, with its thinking and answer, to rewrite it in the required format. That request has
its own key, so the thinking is paid for once even if a run is killed in between.
"""

from tasks.prompts.parsing import parse_reason
from tasks.prompts.thinking import cut_thinking, read_thoughts
from tasks.records import USABLE, Generation, LabelAnswer, Request, digest_of

_AGAIN_TEMPERATURE = 0.7
"""Greedy decoding would give the same answer again."""
_AGAIN_SEEDS = 1000
"""Distance between the seeds of two attempts: n votes of a server that answers one at a time use those in between."""


def reseed(request: Request, attempt: int) -> Request:
    """Return the same question for another attempt: with a new seed, and sampled if it was greedy."""
    temperature = max(request.sampling.temperature, _AGAIN_TEMPERATURE)
    sampling = request.sampling.model_copy(
        update={"seed": request.sampling.seed + _AGAIN_SEEDS * attempt, "temperature": temperature}
    )
    key = digest_of({"again": request.key, "sampling": sampling.model_dump()})
    return request.model_copy(update={"key": key, "sampling": sampling})


def request_reformat(request: Request, generation: Generation) -> Request | None:
    """Return the request to rewrite unreadable answers in the required format, without thinking; None without any.

    Answers whose thinking never ended are left out.
    """
    if not request.thinking or not isinstance(request.constraint, LabelAnswer):
        return None
    thought = [(t, text) for t, text in zip(read_thoughts(generation), generation.texts, strict=True) if t]
    answers = [generation.model_copy(update={"texts": (text,), "thoughts": ()}) for _, text in thought]
    if all(parse_reason(request, answer)[0] in USABLE for answer in answers):
        return None
    drafts = tuple(f"{thoughts}\n\n{cut_thinking(text)}".strip() for thoughts, text in thought)
    key = digest_of({"form of": request.key, "drafts": drafts})
    return request.model_copy(update={"key": key, "thinking": 0, "drafts": drafts})
