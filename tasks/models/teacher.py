"""Label items with a teacher's votes; if the pack says so, the teacher describes each item first.

Also says what each of several teachers has answered, cost and is worth.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.models.ask import Asker
from tasks.models.engines.spec import EngineSpec, TeacherSpec
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings
from tasks.prompts.parsing import parse_reason
from tasks.prompts.prompter import Prompter
from tasks.prompts.thinking import choose_thoughts
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


def find_thoughts(ledger: Ledger, predictions: Iterable[Prediction]) -> dict[str, str]:
    """Return what teachers thought before they chose the labels, by sample id; only of those that thought."""
    found: dict[str, str] = {}
    for prediction in predictions:
        answer = ledger.get([prediction.key]).get(prediction.key)
        if answer is not None and (thoughts := choose_thoughts(answer, prediction.label or "")):
            found[prediction.sample_id] = thoughts
    return found


_TOKENS_IN, _TOKENS_OUT, _VOTES = 1600, 150, 3
"""Of one item with a screenshot and three votes. Prices are compared by it, not by what was used so far, so that a
rerun chooses the same teachers and pays for nothing else."""


def name_teachers(panel: Sequence[TeacherSpec]) -> dict[str, TeacherSpec]:
    """Return the teachers by the role that records, reports and logs give them: `teacher`, or `teacher 1`, …"""
    return {f"teacher {n}" if len(panel) > 1 else "teacher": spec for n, spec in enumerate(panel, 1)}


def estimate_price(spec: EngineSpec) -> float:
    """Return the price of a typical answer, with thoughts of half of `thinking_tokens` before each vote.

    A model without token prices is taken to need one GPU-second.
    """
    prices = spec.prices
    tokens_out = _TOKENS_OUT + _VOTES * spec.thinking_tokens // 2
    return prices.cost_of(_TOKENS_IN, 0, tokens_out) + (0.0 if prices.of_tokens else prices.gpu_hour / 3600)


@dataclass
class TeacherCosts:
    """What each teacher cost in a stage, keyed by role. Answers from the ledger are free."""

    asker: Asker
    costs: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def charge(self, role: str) -> Generator[None]:
        """Context manager: charge what is spent in the block to this teacher."""
        before = self.asker.costs_so_far().cost or 0.0
        yield
        spent = (self.asker.costs_so_far().cost or 0.0) - before
        self.costs[role] = self.costs.get(role, 0.0) + spent

    def count_figures(
        self,
        answers: Mapping[str, Sequence[Mapping[str, Prediction]]],
        given: Mapping[str, str],
        verdicts: Mapping[str, str],
    ) -> dict[str, float]:
        """Return figures for the stage's record: each teacher's answers, cost, agreement with given labels and people.

        `answers` maps role to the teacher's answers about each set, first the labelled set, to which `given` and
        `verdicts` belong; all are keyed by sample id.
        """
        figures: dict[str, float] = {}
        for role, sets in answers.items():
            figures[f"{role}: answers"] = sum(map(len, sets))
            if self.costs.get(role):
                figures[f"{role}: cost"] = round(self.costs[role], 4)
            for name, known in (("given labels", given), ("people", verdicts)):
                both = [p.label == known[i] for i, p in sets[0].items() if i in known and p.label is not None]
                if both:
                    figures[f"{role}: agreement with {name}"] = round(sum(both) / len(both), 4)
        return figures
