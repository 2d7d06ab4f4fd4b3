"""The teacher's answers about items: described first where the pack says so, then labelled by votes."""

from collections.abc import Sequence

from flows.asking import Asking
from tasks.models.engines.engine import EngineSpec
from tasks.models.settings import VoteSettings
from tasks.prompts.parsing import parse_reason
from tasks.prompts.prompter import Prompter
from tasks.records import USABLE, Prediction, Sample, Sampling


def teacher_labels(
    asking: Asking,
    prompter: Prompter,
    samples: Sequence[Sample],
    spec: EngineSpec,
    settings: VoteSettings,
    seed: int,
    what: str,
) -> list[Prediction]:
    """The teacher's prediction of each sample, in order; its prompt never holds the given label."""
    descriptions = _describe(asking, prompter, samples, spec, settings, seed) if prompter.pack.describe_first else {}
    sampling = settings.sampling(seed)
    requests = [prompter.classify(s, sampling, description=descriptions.get(s.id, "")) for s in samples]
    return asking.labels(requests, spec, what, source="teacher", model=prompter.model, attempts=settings.attempts)


def _describe(
    asking: Asking,
    prompter: Prompter,
    samples: Sequence[Sample],
    spec: EngineSpec,
    settings: VoteSettings,
    seed: int,
) -> dict[str, str]:
    """What the teacher sees in each sample, by id; samples it can't describe are missing and are asked without."""
    requests = [prompter.describe(s, Sampling(max_tokens=settings.max_tokens, seed=seed)) for s in samples]
    answers = asking.answers(requests, spec, "teacher describes items")
    read = ((r.sample_id, parse_reason(r, answers[r.key])) for r in requests)
    return {sample_id: text for sample_id, (outcome, text) in read if outcome in USABLE}
