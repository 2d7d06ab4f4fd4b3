"""Ask a question again: with another seed, or for the form of an answer that a model gave after thinking.

Some servers cannot hold a model to a form while it thinks. It then thinks and answers freely, and only where that
answer cannot be read it is asked once more, with what it thought and wrote, to put it into the form. That is a
question with a key of its own, so the thinking is paid for once even if a run is killed in between.
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


def ask_for_form(request: Request, generation: Generation) -> Request | None:
    """Return the question for the form alone if a model has thought about `request` and an answer cannot be read.

    The model then answers without thinking. Answers whose thinking never ended are left out. Returns None if there is
    nothing to ask for.
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
