"""Find a reason for each item's label: ask, judge, and ask again with a complaint."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.models.ask import Asker
from tasks.models.engines.spec import EngineSpec
from tasks.models.failures import FAILURES
from tasks.models.settings import AskSettings
from tasks.prompts.parsing import explain_unread, parse_reason
from tasks.prompts.prompter import Prompter
from tasks.rationales.diversity import Diversity, MarkedReason, measure_diversity
from tasks.rationales.gate import LabelledReason, judge_reasons, supports, write_complaint
from tasks.rationales.grounding import FindLines
from tasks.rationales.judge import Judge, Refusal
from tasks.rationales.settings import RationaleSettings, Support
from tasks.rationales.words import BadReason
from tasks.records import USABLE, Dropped, Outcome, Prediction, Sample, Sampling

STAGE = "rationales"

NO_THOUGHTS: Mapping[str, str] = {}
_HOPELESS = {Outcome.BAD_MEDIA, Outcome.TOO_LONG}


def find_reasons(
    asker: Asker,
    prompter: Prompter,
    samples: Sequence[Sample],
    spec: EngineSpec,
    settings: RationaleSettings,
    ask: AskSettings,
    seed: int,
    find_lines: FindLines | None = None,
    thoughts: Mapping[str, str] = NO_THOUGHTS,
    judge: Judge | None = None,
) -> "Reasons":
    """Ask why each sample has its given label, up to `ask.attempts` times; keep or drop every sample.

    `find_lines` finds the text on images, with which boxes are judged. `thoughts` maps sample ids to another model's
    thinking, which is to be shortened to a reason. `judge` checks each reason last. Raises what `asker` raises.
    """
    reasoner = _Reasoner(asker, prompter, spec, settings, ask, seed, find_lines, thoughts, judge)
    waiting = samples
    for attempt in range(ask.attempts):
        waiting = reasoner.ask_once(waiting, attempt)
    asker.check_failures(reasoner.found.list_failures(), len(samples), "reasons")
    return reasoner.found


@dataclass
class Reasons:
    """The results of `find_reasons`; mappings are keyed by item id."""

    kept: dict[str, Prediction] = field(default_factory=dict[str, Prediction])
    """Items with an accepted reason; `probabilities` are those of the labels after the reason, if asked for."""
    dropped: dict[str, Dropped] = field(default_factory=dict[str, Dropped])
    """Items without an accepted reason, with the fault of the last one."""
    first: dict[str, str] = field(default_factory=dict[str, str])
    """Every readable reason of the first attempt."""
    first_faults: Counter[str] = field(default_factory=Counter[str])
    """Faults of the first attempt, with the number of each."""
    unsure: int = 0
    """Number of reasons accepted although the engine cannot tell whether they lead to the label."""

    def list_failures(self) -> Iterator[tuple[str, Outcome, str]]:
        """Yield (item id, outcome, detail) for each item whose last answer was not a reason at all."""
        for dropped in self.dropped.values():
            if dropped.reason in FAILURES:
                yield dropped.sample_id, Outcome(dropped.reason), dropped.detail

    def diversity(self, near: float, ids: Sequence[str] | None = None) -> tuple[Diversity, Diversity]:
        """Return the diversity of the first answers and that of the accepted reasons, for all items or for `ids`."""
        before = self.first if ids is None else {i: self.first[i] for i in ids if i in self.first}
        after = self.kept if ids is None else {i: self.kept[i] for i in ids if i in self.kept}
        return measure_diversity(list(before.values()), near), measure_diversity(
            [p.reason for p in after.values()], near
        )

    def figures(self, near: float) -> dict[str, float]:
        """Return the figures of the stage's record by name: diversity, lengths, and faults of the first answers."""
        figures: dict[str, float] = {}
        for when, of in zip(("before", "after"), self.diversity(near), strict=True):
            figures |= {
                f"distinct-1 {when}": of.distinct_1,
                f"distinct-2 {when}": of.distinct_2,
                f"near-duplicates {when}": of.near_duplicates,
                f"mean characters {when}": of.mean_chars,
                f"most characters {when}": of.most_chars,
            }
        figures |= {f"first answers: {fault}": float(n) for fault, n in sorted(self.first_faults.items())}
        figures["kept after asking again"] = sum(p.attempt > 0 for p in self.kept.values())
        if any(p.boxes for p in self.kept.values()):
            figures["kept with boxes"] = sum(bool(p.boxes) for p in self.kept.values())
        if self.unsure:
            figures["support not known"] = self.unsure
        return figures

    def figures_by_class(self, samples: Sequence[Sample], near: float) -> list[dict[str, object]]:
        """Return one row per class with its diversity, the largest class first."""
        rows: list[dict[str, object]] = []
        for label, items in Counter(s.given or "" for s in samples).most_common():
            before, after = self.diversity(near, [s.id for s in samples if s.given == label])
            row: dict[str, object] = {"label": label, "items": items, "with a reason": after.count}
            for when, of in (("before", before), ("after", after)):
                row[f"near-duplicates {when}"] = round(of.near_duplicates, 3)
                row[f"distinct-2 {when}"] = round(of.distinct_2, 3)
            rows.append(row)
        return rows


@dataclass
class _Reasoner:
    asker: Asker
    prompter: Prompter
    spec: EngineSpec
    settings: RationaleSettings
    ask: AskSettings
    seed: int
    find_lines: FindLines | None
    thoughts: Mapping[str, str]
    judge: Judge | None
    found: Reasons = field(default_factory=Reasons)
    accepted: list[MarkedReason] = field(default_factory=list[MarkedReason])
    complaints: dict[str, str] = field(default_factory=dict[str, str])

    def ask_once(self, samples: Sequence[Sample], attempt: int) -> list[Sample]:
        """Ask once for each of `samples` and record the results; return the samples worth asking again."""
        what = "reasons" if attempt == 0 else f"reasons, attempt {attempt + 1}"
        explained, faults, answers = self._ask(samples, attempt, what)
        if attempt == 0:
            self.found.first = {e.sample.id: e.reason for e in explained}
        last = attempt + 1 == self.ask.attempts
        pack = self.prompter.pack
        judged = judge_reasons(
            explained, pack, self.settings, accepted=self.accepted, last=last, find_lines=self.find_lines
        )
        sound = [e for e, bad in zip(explained, judged, strict=True) if bad is None]
        faults |= {e.sample.id: bad for e, bad in zip(explained, judged, strict=True) if bad is not None}
        conclusions = self._conclude(sound, what) if self.settings.support is not Support.NO else {}
        supported: list[LabelledReason] = []
        for one in sound:
            answer = conclusions.get(one.sample.id)
            if answer is not None and supports(answer, one.label) is False:
                faults[one.sample.id] = BadReason.UNSUPPORTED
            else:
                supported.append(one)
        refused = self.judge.find_refused(self.asker, supported, what, first=attempt == 0) if self.judge else {}
        faults |= {sample_id: refusal.fault for sample_id, refusal in refused.items()}
        for one in supported:
            if one.sample.id not in refused:
                self._keep(one, conclusions.get(one.sample.id), attempt)
        for sample_id, fault in faults.items():
            self._drop(sample_id, fault, answers[sample_id], refused.get(sample_id))
        if attempt == 0:
            self.found.first_faults.update(faults.values())
        return [s for s in samples if s.id in faults and faults[s.id] not in _HOPELESS]

    def _ask(
        self, samples: Sequence[Sample], attempt: int, what: str
    ) -> tuple[list[LabelledReason], dict[str, BadReason | Outcome], dict[str, str]]:
        """Return the readable reasons, the outcomes of the others by id, and the text of each answer by id."""
        sampling = self.ask.sample_reason(attempt, self.seed)
        hints = ((self.complaints.get(s.id, ""), self.thoughts.get(s.id, "")) for s in samples)
        asked = zip(samples, hints, strict=True)
        requests = [self.prompter.rationale(s, s.given or "", sampling, *about) for s, about in asked]
        answers = self.asker.ask(requests, self.spec, what)
        explained: list[LabelledReason] = []
        faults: dict[str, BadReason | Outcome] = {}
        texts: dict[str, str] = {}
        for sample, request in zip(samples, requests, strict=True):
            outcome, read = parse_reason(request, answers[request.key])
            texts[sample.id] = "; ".join((read.text, *read.faults)) or explain_unread(outcome, answers[request.key])
            if outcome in USABLE:
                explained.append(LabelledReason(sample, sample.given or "", read.text, read.boxes, read.faults))
            else:
                faults[sample.id] = outcome
        return explained, faults, texts

    def _conclude(self, sound: Sequence[LabelledReason], what: str) -> dict[str, Prediction]:
        """Ask for the label after each reason, one scored token per item; return the predictions by id."""
        sampling = Sampling(max_tokens=1, seed=self.seed, label_probabilities=True)
        bare = {"parts": ()} if self.settings.support is Support.REASON_ALONE else {}
        requests = [self.prompter.conclude(e.sample.model_copy(update=bare), e.reason, sampling) for e in sound]
        predictions = self.asker.ask_for_labels(
            requests, self.spec, f"support of {what}", source="support", model=self.prompter.model, may_fail=True
        )
        return {p.sample_id: p for p in predictions}

    def _keep(self, one: LabelledReason, answer: Prediction | None, attempt: int) -> None:
        self.accepted.append(one.mark())
        self.found.unsure += answer is not None and supports(answer, one.label) is None
        self.found.dropped.pop(one.sample.id, None)
        self.found.kept[one.sample.id] = Prediction(
            sample_id=one.sample.id,
            source="rationale",
            outcome=Outcome.OK,
            label=one.label,
            probabilities=answer.probabilities if answer else {},
            reason=one.reason,
            boxes=one.boxes,
            model=self.prompter.model,
            attempt=attempt,
        )

    def _drop(self, sample_id: str, fault: BadReason | Outcome, answer: str, refusal: Refusal | None) -> None:
        remark = refusal.words if refusal else ""
        detail = f"{answer} (the judge: {remark})" if remark else answer
        self.found.dropped[sample_id] = Dropped(sample_id=sample_id, stage=STAGE, reason=fault, detail=detail)
        if isinstance(fault, BadReason):
            self.complaints[sample_id] = write_complaint(fault, answer, self.prompter.pack, remark)
