"""`labelstill check`: read all items without asking a model, and report what a run would drop and ask."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from flows.config import DistillConfig, EmitConfig
from tasks.items.known_files import KNOWN
from tasks.items.samples import Intake, read_samples
from tasks.models.engines.identity import make_prompter
from tasks.models.pins import describe_newer_commit
from tasks.models.token_budget import estimate_prompt_tokens
from tasks.packs.pack import Pack, load_pack
from tasks.prompts.prompter import count_fixed_chars
from tasks.records import Dropped, Request, Sampling, Split
from tasks.students.asking import choose_base_engine
from tasks.students.settings import ProbeSpec


@dataclass(frozen=True)
class Estimate:
    """About how many requests and tokens a stage would need. `tokens` counts prompts, not answers."""

    stage: str
    requests: int
    tokens: int
    fixed_chars: int
    """The largest number of characters that the pack itself adds to a prompt."""


@dataclass(frozen=True)
class CheckReport:
    """What a run would read, drop and ask."""

    intakes: dict[Split, Intake]
    estimates: tuple[Estimate, ...]
    newer: tuple[str, ...] = ()
    """A sentence per model of which the hub has a newer commit than the one in use."""

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """All items that a run would drop."""
        return tuple(d for intake in self.intakes.values() for d in intake.dropped)

    @property
    def usable(self) -> bool:
        """Whether every configured set has at least one usable item."""
        return all(intake.kept for intake in self.intakes.values())

    def count_reasons(self) -> dict[str, int]:
        """Return the number of dropped items per reason code."""
        return dict(sorted(Counter(d.reason for d in self.dropped).items()))


def check(
    config: DistillConfig, progress: Callable[[Split, int, int], None] = lambda split, done, total: None
) -> CheckReport:
    """Read all items of the sets in `config`, and report what a run would drop and ask.

    Calls `progress(split, items_done, items_in_total)` during the work. Raises ManifestError or PackError if a whole
    file is unusable.
    """
    pack = load_pack(config.pack)
    *_, last = config.list_stage_configs()
    for stage in last.stages if isinstance(last, EmitConfig) else ():
        pack.require_labels(stage)
    sets = (Split.LABELLED, config.labelled), (Split.UNLABELLED, config.unlabelled), (Split.TEST, config.evaluation)
    known = config.images / KNOWN
    intakes = {
        split: read_samples(source.manifest, source.images, pack, split, known=known, progress=partial(progress, split))
        for split, source in sets
        if source is not None
    }
    return CheckReport(intakes, tuple(_estimate_stages(config, pack, intakes)), tuple(_find_newer_commits(config)))


def _find_newer_commits(config: DistillConfig) -> Iterator[str]:
    loaded = [spec for spec in config.engines if spec.engine in ("vllm", "local")]
    if config.student is not None and not isinstance(config.student, ProbeSpec):
        loaded.append(choose_base_engine(config.student))
    for model in dict.fromkeys(spec.model for spec in loaded if spec.revision is None):
        if found := describe_newer_commit(model, config.ledger):
            yield found


def _estimate_stages(config: DistillConfig, pack: Pack, intakes: dict[Split, Intake]) -> Iterator[Estimate]:
    labelled = intakes[Split.LABELLED].kept if Split.LABELLED in intakes else ()
    pool = intakes[Split.UNLABELLED].kept if Split.UNLABELLED in intakes else ()
    sampling = Sampling()
    if config.generator and labelled:
        prompter = make_prompter(pack, config.generator)
        yield _estimate("rationales", [prompter.rationale(s, s.given or "", sampling) for s in labelled])
    if config.teacher is None or not (pool or config.student):
        return
    teacher = make_prompter(pack, config.teacher)
    checked = _estimate("pseudo-labels: calibration", [teacher.classify(s, sampling) for s in labelled])
    if pool:
        if pack.describe_first:
            yield _estimate("pseudo-labels: descriptions", [teacher.describe(s, sampling) for s in pool])
        yield _estimate("pseudo-labels", [teacher.classify(s, sampling) for s in pool])
        if labelled:
            yield checked
    if config.student and labelled:
        if not isinstance(config.student, ProbeSpec):  # which asks no model
            student = make_prompter(pack, choose_base_engine(config.student))
            asked = [student.classify(s, sampling, with_reason=False) for s in labelled]
            yield _estimate("correction: students", asked * config.student.repeats)
        share = config.correction.teacher_share
        requests, tokens = round(share * checked.requests), round(share * checked.tokens)
        yield replace(checked, stage="correction: teacher", requests=requests, tokens=tokens)


def _estimate(stage: str, requests: Sequence[Request]) -> Estimate:
    tokens = sum(estimate_prompt_tokens(r) for r in requests)
    return Estimate(stage, len(requests), tokens, max((count_fixed_chars(r) for r in requests), default=0))
