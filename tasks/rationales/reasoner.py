"""Reasons for the labels of a set: asked for, judged, and asked for again with the complaint."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tasks.prompts.parsing import parse_reason
from tasks.prompts.prompter import Prompter
from tasks.rationales.diversity import Crowds, Diversity, Worded, diversity
from tasks.rationales.gate import Explained, complaint, judge_reasons, supports
from tasks.rationales.words.lists import BadReason
from tasks.records import USABLE, Dropped, Generation, Outcome, Prediction, Request, Sample, Sampling

STAGE = "rationales"

Answers = Callable[[Sequence[Request], str], Mapping[str, Generation]]
"""Asks requests and returns the answers by key; the second argument tells people what is asked."""
Labels = Callable[[Sequence[Request], str], Sequence[Prediction]]
"""The same for label requests; returns their predictions."""

_RETRY_TEMPERATURE = 0.8
"""A greedy answer asked again would come out the same, where a pack's template does not show the complaint."""

_HOPELESS = {Outcome.BAD_MEDIA, Outcome.TOO_LONG}


class Support(StrEnum):
    """Whether a model is asked, blind, for the label after a reason, and what it sees beside it.

    The demo's generator tells right reasons from those of another class by P(label) with an area under ROC of 0.53
    beside the item, at which it looks instead, and 0.75 alone, though it was never asked so
    (tests/benchmarks/reasons.py). A question costs a prefill; alone, one without images.
    """

    NO = "no"
    WITH_ITEM = "with_item"
    REASON_ALONE = "reason_alone"


@dataclass(frozen=True)
class Asked:
    """How reasons are asked for and judged. Made from the settings."""

    attempts: int = 2
    """A refused reason is asked for so often in all."""
    support: Support = Support.NO
    temperature: float = 0.0
    max_tokens: int = 96
    seed: int = 0
    crowds: Crowds = field(default_factory=Crowds)

    def sampling(self, attempt: int) -> Sampling:
        """Of the `attempt`-th asking, from 0."""
        temperature = self.temperature if attempt == 0 else max(self.temperature, _RETRY_TEMPERATURE)
        return Sampling(temperature=temperature, max_tokens=self.max_tokens, seed=self.seed + attempt)


@dataclass
class Reasons:
    """What has become of each item, by id. Made by `Reasoner`."""

    kept: dict[str, Prediction] = field(default_factory=dict[str, Prediction])
    """With a reason that passed; `probabilities` are the labels' after it, where they were asked for."""
    dropped: dict[str, Dropped] = field(default_factory=dict[str, Dropped])
    """Without one: what was wrong with the last."""
    first: dict[str, str] = field(default_factory=dict[str, str])
    """Every reason of the first attempt that could be read."""
    first_faults: Counter[str] = field(default_factory=Counter[str])
    unsure: int = 0
    """Kept though the engine can't tell whether they lead to the label."""

    def diversity(self, near: float, ids: Sequence[str] | None = None) -> tuple[Diversity, Diversity]:
        """Of the first answers and of what is kept; of all items, or of `ids`."""
        before = self.first if ids is None else {i: self.first[i] for i in ids if i in self.first}
        after = self.kept if ids is None else {i: self.kept[i] for i in ids if i in self.kept}
        return diversity(list(before.values()), near), diversity([p.reason for p in after.values()], near)


class Reasoner:
    """Finds a reason for the given label of each sample, as far as the gate lets one through.

    Raises what `answers` and `labels` raise.
    """

    def __init__(self, prompter: Prompter, asked: Asked, answers: Answers, labels: Labels) -> None:
        self._prompter, self._asked = prompter, asked
        self._answers, self._labels = answers, labels
        self._standing: list[Worded] = []
        self._complaints: dict[str, str] = {}
        self._found = Reasons()

    def find(self, samples: Sequence[Sample]) -> Reasons:
        """The reasons of all `samples`; every one is either kept or dropped."""
        waiting = samples
        for attempt in range(self._asked.attempts):
            waiting = self._attempt(waiting, attempt)
        return self._found

    def _attempt(self, samples: Sequence[Sample], attempt: int) -> list[Sample]:
        """Ask once for each of `samples` and put down what came of it; returns those worth asking again."""
        what = "reasons" if attempt == 0 else f"reasons, attempt {attempt + 1}"
        explained, faults, said = self._ask(samples, attempt, what)
        if attempt == 0:
            self._found.first = {e.sample.id: e.reason for e in explained}
        last = attempt + 1 == self._asked.attempts
        crowds, pack = self._asked.crowds, self._prompter.pack
        judged = judge_reasons(explained, pack, crowds, standing=self._standing, last=last)
        sound = [e for e, bad in zip(explained, judged, strict=True) if bad is None]
        faults |= {e.sample.id: bad for e, bad in zip(explained, judged, strict=True) if bad is not None}
        concluded = self._conclude(sound, what) if self._asked.support is not Support.NO else {}
        for one in sound:
            answer = concluded.get(one.sample.id)
            supported = None if answer is None else supports(answer, one.label)
            if supported is False:
                faults[one.sample.id] = BadReason.UNSUPPORTED
            else:
                self._found.unsure += answer is not None and supported is None
                self._keep(one, answer, attempt)
        for sample_id, fault in faults.items():
            self._drop(sample_id, fault, said[sample_id])
        if attempt == 0:
            self._found.first_faults.update(faults.values())
        return [s for s in samples if s.id in faults and faults[s.id] not in _HOPELESS]

    def _ask(
        self, samples: Sequence[Sample], attempt: int, what: str
    ) -> tuple[list[Explained], dict[str, BadReason | Outcome], dict[str, str]]:
        """The reasons that could be read, the outcomes of the others, and what each answer said, by id."""
        sampling = self._asked.sampling(attempt)
        requests = [
            self._prompter.rationale(s, s.given or "", sampling, self._complaints.get(s.id, "")) for s in samples
        ]
        answers = self._answers(requests, what)
        explained: list[Explained] = []
        faults: dict[str, BadReason | Outcome] = {}
        said: dict[str, str] = {}
        for sample, request in zip(samples, requests, strict=True):
            outcome, reason = parse_reason(request, answers[request.key])
            said[sample.id] = reason or answers[request.key].detail
            if outcome in USABLE:
                explained.append(Explained(sample, sample.given or "", reason))
            else:
                faults[sample.id] = outcome
        return explained, faults, said

    def _conclude(self, sound: Sequence[Explained], what: str) -> dict[str, Prediction]:
        """To which label the model comes after each reason, by id: one scored token an item."""
        sampling = Sampling(max_tokens=1, seed=self._asked.seed, label_probabilities=True)
        bare = {"parts": ()} if self._asked.support is Support.REASON_ALONE else {}
        requests = [self._prompter.conclude(e.sample.model_copy(update=bare), e.reason, sampling) for e in sound]
        return {p.sample_id: p for p in self._labels(requests, f"support of {what}")}

    def _keep(self, one: Explained, answer: Prediction | None, attempt: int) -> None:
        self._standing.append(one.worded())
        self._found.dropped.pop(one.sample.id, None)
        self._found.kept[one.sample.id] = Prediction(
            sample_id=one.sample.id,
            source="rationale",
            outcome=Outcome.OK,
            label=one.label,
            probabilities=answer.probabilities if answer else {},
            reason=one.reason,
            model=self._prompter.model,
            attempt=attempt,
        )

    def _drop(self, sample_id: str, fault: BadReason | Outcome, said: str) -> None:
        self._found.dropped[sample_id] = Dropped(sample_id=sample_id, stage=STAGE, reason=fault, detail=said)
        if isinstance(fault, BadReason):
            self._complaints[sample_id] = complaint(fault, said, self._prompter.pack)
