"""Label items with a teacher's votes; if the pack says so, the teacher describes each item first."""

from collections.abc import Sequence

from tasks.models.ask import Asker
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.prompts.parsing import parse_reason
from tasks.prompts.prompter import Prompter
from tasks.records import USABLE, Prediction, Sample, Sampling


def label_with_teacher(
    asker: Asker,
    prompter: Prompter,
    samples: Sequence[Sample],
    spec: EngineSpec,
    ask: AskSettings,
    seed: int,
    what: str,
) -> list[Prediction]:
    """Return the teacher's prediction for each sample, in input order; the prompt never contains the given label."""
    descriptions: dict[str, str] = {}
    if prompter.pack.describe_first:
        # a sample without a readable description is labelled without one
        requests = [prompter.describe(s, Sampling(max_tokens=ask.max_tokens, seed=seed)) for s in samples]
        answers = asker.ask(requests, spec, "teacher describes items")
        read = [(r.sample_id, *parse_reason(r, answers[r.key])) for r in requests]
        failed = (
            (r.sample_id, outcome, answers[r.key].detail) for r, (_, outcome, _) in zip(requests, read, strict=True)
        )
        asker.check_failures(failed, len(requests), "teacher describes items")
        descriptions = {sample_id: found.text for sample_id, outcome, found in read if outcome in USABLE}
    sampling = ask.sample_votes(seed)
    requests = [prompter.classify(s, sampling, description=descriptions.get(s.id, ""), show_box=True) for s in samples]
    return asker.ask_for_labels(requests, spec, what, source="teacher", model=prompter.model, attempts=ask.attempts)
