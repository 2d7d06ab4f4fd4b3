"""`labelstill check`: reads everything, asks no model, and says what a run would drop and cost."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flows.config import DistillConfig, EmitConfig
from tasks.items.samples import Intake, read_samples
from tasks.items.settings import SourceConfig
from tasks.models.engines.identity import prompter_for
from tasks.models.token_budget import estimate_prompt_tokens
from tasks.packs.pack import Pack, load_pack
from tasks.prompts.prompter import Prompter, count_fixed_chars
from tasks.records import Dropped, Request, Sample, Sampling, Split
from tasks.students.asking import choose_base_engine
from tasks.students.settings import ProbeSpec


@dataclass(frozen=True)
class Estimate:
    """About what a stage would ask; `tokens` counts prompts only."""

    stage: str
    requests: int
    tokens: int
    fixed_chars: int
    """Characters of the pack's own part of the longest prompt."""


@dataclass(frozen=True)
class CheckReport:
    """What a run of the configuration would read, drop and ask."""

    intakes: dict[Split, Intake]
    estimates: tuple[Estimate, ...]

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """All refused items."""
        return tuple(d for intake in self.intakes.values() for d in intake.dropped)

    @property
    def usable(self) -> bool:
        """Whether every set that was given has an item left."""
        return all(intake.kept for intake in self.intakes.values())

    def reasons(self) -> dict[str, int]:
        """Refused items by reason code."""
        return dict(sorted(Counter(d.reason for d in self.dropped).items()))


def check(config: DistillConfig, progress: Callable[[str, int, int], None] | None = None) -> CheckReport:
    """Read every item of `config`; `progress` is called with (set, done, total).

    Raises ManifestError or PackError for a file that is unusable as a whole.
    """
    pack = load_pack(config.pack)
    *_, last = config.stage_configs()
    for stage in last.stages if isinstance(last, EmitConfig) else ():
        pack.require_labels(stage)
    intakes: dict[Split, Intake] = {}
    sets = (Split.LABELLED, config.labelled), (Split.UNLABELLED, config.unlabelled), (Split.TEST, config.evaluation)
    for split, source in sets:
        if source is not None:
            intakes[split] = _read(source, pack, split, progress)
    return CheckReport(intakes, tuple(_estimates(config, pack, intakes)))


def _read(source: SourceConfig, pack: Pack, split: Split, progress: Callable[[str, int, int], None] | None) -> Intake:
    def moved(done: int, total: int) -> None:
        if progress is not None:
            progress(split, done, total)

    return read_samples(source.manifest, source.images, pack, split, progress=moved)


def _estimates(config: DistillConfig, pack: Pack, intakes: dict[Split, Intake]) -> list[Estimate]:
    labelled = intakes[Split.LABELLED].kept if Split.LABELLED in intakes else ()
    pool = intakes[Split.UNLABELLED].kept if Split.UNLABELLED in intakes else ()
    estimates: list[Estimate] = []
    sampling = Sampling()
    if config.generator and labelled:
        spec = config.generator
        prompter = prompter_for(pack, spec, texts={})
        requests = [prompter.rationale(s, s.given or "", sampling) for s in labelled]
        estimates.append(_estimate("rationales", requests))
    if config.teacher and (pool or config.student):
        spec = config.teacher
        prompter = prompter_for(pack, spec, texts={})
        if pool:
            if pack.describe_first:
                described = [prompter.describe(s, sampling) for s in pool]
                estimates.append(_estimate("pseudo-labels: descriptions", described))
            requests = [prompter.classify(s, sampling) for s in pool]
            estimates.append(_estimate("pseudo-labels", requests))
            if labelled:
                checked = [prompter.classify(s, sampling) for s in labelled]
                estimates.append(_estimate("pseudo-labels: calibration", checked))
        if config.student and labelled:
            estimates.extend(_correction_estimates(config, pack, prompter, labelled))
    return estimates


def _correction_estimates(
    config: DistillConfig, pack: Pack, teacher: Prompter, labelled: Sequence[Sample]
) -> list[Estimate]:
    assert config.student is not None
    spec = config.student
    sampling = Sampling()
    blind = [teacher.classify(s, sampling) for s in labelled]
    share = round(config.correction.teacher_share * len(blind))
    asked = _estimate("correction: teacher", blind)
    adjudicated = replace(asked, requests=share, tokens=round(asked.tokens * config.correction.teacher_share))
    if isinstance(spec, ProbeSpec):  # asks no model
        return [adjudicated]
    student = prompter_for(pack, choose_base_engine(spec), texts={})
    own = [student.classify(s, sampling, with_reason=False) for s in labelled for _ in range(spec.repeats)]
    return [_estimate("correction: students", own), adjudicated]


def _estimate(stage: str, requests: Sequence[Request]) -> Estimate:
    tokens = sum(estimate_prompt_tokens(r) for r in requests)
    return Estimate(stage, len(requests), tokens, max((count_fixed_chars(r) for r in requests), default=0))
