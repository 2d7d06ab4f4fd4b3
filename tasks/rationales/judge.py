"""Have another model judge reasons, and compare it with people.

The judge sees the item, its label, the label that is most like it, and the reason. It writes a few words and then one
of four answers; judge.jinja of the pack says what they mean. The probability of `good` is the reason's score, and a
reason with a score below the threshold is refused.

People judge a blind sample on the review page. With enough of their verdicts, the threshold is the score that agrees
with most of them. The sample is drawn from first answers: these do not depend on the threshold, so verdicts stay valid
when it moves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from tasks.media import TextPart
from tasks.models.ask import Asker
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.rationales.gate import LabelledReason
from tasks.rationales.words import BadReason
from tasks.records import NEITHER, Interval, Prediction, Request, ReviewCase, Sample, Sampling, digest_of
from tasks.review.queue import settle_cases

GOOD, BAD = "good", "bad"
"""The verdicts that the review page offers; `good` is also the judge's answer about a reason without a fault."""
FAULTS = {
    "not_visible": BadReason.JUDGED_NOT_VISIBLE,
    "invented": BadReason.JUDGED_INVENTED,
    "supports_neighbour": BadReason.JUDGED_FOR_NEIGHBOUR,
}
"""Maps the judge's other answers to the fault that each of them names."""
ANSWERS = (GOOD, *FAULTS)

THRESHOLD_FIGURE = "judge: threshold"
"""The name of the threshold in a stage's record."""
_THRESHOLD = 0.5
"""The threshold until people have judged `_ENOUGH` reasons."""
_ENOUGH = 20
_SAMPLE = 50
"""Reasons on the review page: half of them have a score below `_THRESHOLD`, if there are that many."""
_QUESTION = (
    "A model judges reasons like this one, and your verdict shows how well. Good: what the reason says can be seen or "
    "read here, it speaks for this label and not for a similar one, and nothing in it is invented. Neither: you can't "
    "say."
)


class Refusal(NamedTuple):
    """Why the judge refused a reason: the fault, and the judge's own words."""

    fault: BadReason
    words: str


@dataclass
class Judge:
    """Judges the reasons of one run and collects what is known about the judge. Raises PackError without judge.jinja.

    `folder` is the review folder with people's verdicts; None if people do not review these reasons. Then `threshold`
    is the one chosen on the reviewed reasons.
    """

    spec: EngineSpec
    prompter: Prompter
    ask: AskSettings
    seed: int
    folder: Path | None
    threshold: float = _THRESHOLD
    agreement: Interval | None = None
    """Share of people's verdicts in the sample with which the judge agrees; None without verdicts."""
    verdicts: int = 0
    unread: int = 0
    """Number of reasons that were kept because the judge's answer about them cannot be read."""
    cases: list[ReviewCase] = field(default_factory=list[ReviewCase])
    """The sample that people are asked about, in random order."""

    def __post_init__(self) -> None:
        self.prompter.pack.require_template("judge.jinja", "rationales.judge")

    def find_refused(
        self, asker: Asker, reasons: Sequence[LabelledReason], what: str, *, first: bool
    ) -> dict[str, Refusal]:
        """Ask about all `reasons` and return those below the threshold, keyed by item id.

        `first` says that they are first answers, from which the sample is drawn. Raises what `asker` raises.
        """
        requests = [make_request(self.prompter, e.sample, e.label, e.reason, self.ask, self.seed) for e in reasons]
        answers = asker.ask_for_labels(
            requests, self.spec, f"judging {what}",
            source="judge", model=self.prompter.model, attempts=self.ask.attempts,
        )  # fmt: skip
        scores = {a.sample_id: score for a in answers if (score := measure_score(a)) is not None}
        self.unread += len(answers) - len(scores)
        if first and self.folder is not None:
            self._compare_with_people([e for e in reasons if e.sample.id in scores], scores, self.folder)
        return {a.sample_id: _explain(a) for a in answers if scores.get(a.sample_id, self.threshold) < self.threshold}

    def figures(self) -> dict[str, float]:
        """Return the figures for the stage's record by name."""
        figures: dict[str, float] = {THRESHOLD_FIGURE: self.threshold, "judge: not judged": self.unread}
        if self.agreement is not None:
            figures |= {
                "judge: verdicts of people": self.verdicts,
                "judge: agreement with people": self.agreement.value,
                "judge: agreement, lower": self.agreement.low,
                "judge: agreement, upper": self.agreement.high,
            }
        return figures

    def _compare_with_people(
        self, reasons: Sequence[LabelledReason], scores: Mapping[str, float], folder: Path
    ) -> None:
        """Draw the sample, choose the threshold and measure the agreement. Reasons judged before stay in the sample."""
        cases = {e.sample.id: make_case(e, self.prompter.pack) for e in reasons}
        settled = settle_cases(list(cases.values()), folder)
        judged = {i: verdict == GOOD for i, verdict in settled.verdicts.items() if verdict != NEITHER}
        self.verdicts = len(judged)
        self.threshold, self.agreement = choose_threshold([scores[i] for i in judged], list(judged.values()))
        shown = {*draw_sample(scores, self.seed), *settled.verdicts, *settled.disagreed}
        self.cases = [cases[i] for i in _shuffle(shown, self.seed)]


def make_request(prompter: Prompter, sample: Sample, label: str, reason: str, ask: AskSettings, seed: int) -> Request:
    """Return the question whether `reason` explains why `sample` has `label`."""
    sampling = Sampling(max_tokens=ask.max_tokens, seed=seed, label_probabilities=True)
    return prompter.judge(sample, label, find_neighbour(sample, label, prompter.pack), reason, ANSWERS, sampling)


def find_neighbour(sample: Sample, label: str, pack: Pack) -> str:
    """Return the item's label whose name and gloss share most pairs of characters with those of `label`; "" if none.

    Weighting pairs by how few labels have them found better neighbours for some of 48 labels, and worse for as many.
    """
    glosses = pack.task(sample.task).labels

    def list_pairs(name: str) -> set[str]:
        text = name + glosses.get(name, "")
        return {text[i : i + 2] for i in range(len(text) - 1)}

    own = list_pairs(label)

    def measure_likeness(other: str) -> float:
        pairs = list_pairs(other)
        return len(own & pairs) / max(1, len(own | pairs))

    return max((name for name in sample.labels if name != label), key=measure_likeness, default="")


def measure_score(answer: Prediction) -> float | None:
    """Return the probability of `good`; 0 or 1 if the engine gives none, and None if the answer cannot be read."""
    if answer.label is None:
        return None
    return answer.probabilities.get(GOOD, 0.0) if answer.probabilities else float(answer.label == GOOD)


def make_case(one: LabelledReason, pack: Pack) -> ReviewCase:
    """Return the question to a person. Label and reason follow the item as turns, so a verdict is about these words."""
    last = max((part.turn for part in one.sample.parts), default=0)
    shown = ((pack.label_key, one.label), (pack.reason_key, one.reason))
    turns = (TextPart(text=f"\n{name}: {text}", turn=last + n) for n, (name, text) in enumerate(shown, 1))
    return ReviewCase(
        sample_id=one.sample.id,
        source=one.sample.source,
        parts=(*one.sample.parts, *turns),
        boxes=one.boxes,
        labels=(GOOD, BAD),
        given="",
        candidate=None,
        blind=True,
        choices=(GOOD, BAD),
        why=_QUESTION,
    )


def draw_sample(scores: Mapping[str, float], seed: int) -> list[str]:
    """Draw `_SAMPLE` ids at random, half of them scored below `_THRESHOLD`; more of one kind if the other is rare."""
    shuffled = _shuffle(scores, seed)
    low = [i for i in shuffled if scores[i] < _THRESHOLD]
    high = [i for i in shuffled if scores[i] >= _THRESHOLD]
    count = min(len(low), max(_SAMPLE // 2, _SAMPLE - len(high)))
    return low[:count] + high[: _SAMPLE - count]


def choose_threshold(scores: Sequence[float], good: Sequence[bool]) -> tuple[float, Interval | None]:
    """Return the threshold that agrees with most verdicts (of equals the nearest to `_THRESHOLD`), and the agreement.

    Each verdict is compared with the threshold that the others choose, else the agreement would be too favourable. The
    interval is Wilson's. It applies to the sample, in which low scores are more frequent than among all reasons.
    """
    if not scores:
        return _THRESHOLD, None
    options = [_THRESHOLD]
    if len(scores) >= _ENOUGH:
        known = np.unique(scores)
        options += [0.0, *((known[1:] + known[:-1]) / 2).tolist()]
    bars = np.array(
        sorted(options, key=lambda threshold: abs(threshold - _THRESHOLD))
    )  # argmax takes the first of equals
    right = (np.array(scores)[:, None] >= bars) == np.array(good)[:, None]
    chosen_by_others = np.argmax(right.sum(0) - right, axis=1)
    hits = int(right[np.arange(len(scores)), chosen_by_others].sum())
    interval = binomtest(hits, len(scores)).proportion_ci(method="wilson")
    agreement = Interval(value=hits / len(scores), low=float(interval.low), high=float(interval.high))
    return float(bars[right.sum(0).argmax()]), agreement


def _explain(answer: Prediction) -> Refusal:
    """Return the most probable fault of a reason that is not good enough."""
    likely = max(FAULTS, key=lambda name: answer.probabilities.get(name, float(name == answer.label)))
    return Refusal(FAULTS[likely], answer.reason)


def _shuffle(ids: Mapping[str, float] | set[str], seed: int) -> list[str]:
    """Return the ids in a random order that stays the same when others come or go."""
    return sorted(ids, key=lambda i: digest_of([seed, i]))
