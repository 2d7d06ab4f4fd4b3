"""`labelstill check`: read all items without asking a model, and report what a run would drop and ask."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from flows.config import DistillConfig, EmitConfig
from tasks.errors import EngineError
from tasks.items.samples import Intake, read_samples
from tasks.models.engines.engine import Workplace
from tasks.models.engines.identity import make_prompter
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.options import format_serve_line
from tasks.models.gpu_hours import Work, measure_work
from tasks.models.image_cache import ImageCache
from tasks.models.pins import describe_newer_commit
from tasks.models.qwen_vl import find_patch_size
from tasks.models.teacher import name_teachers
from tasks.models.token_budget import CHARS_PER_TOKEN
from tasks.packs.pack import Pack, load_pack
from tasks.prompts.prompter import Prompter, count_fixed_chars
from tasks.rationales.judge import make_request
from tasks.rationales.settings import Support
from tasks.records import Dropped, Request, Sample, Sampling, Split
from tasks.students.asking import choose_base_engine, make_label_requests
from tasks.students.settings import AnyStudent, ProbeSpec, StudentSpec

_REJECTED = 2 / 3
"""Share of the reasons that the gate rejects, so that they are asked for again; .86 and .43 in the demo's rounds."""


@dataclass(frozen=True)
class Estimate:
    """The estimated requests of a stage."""

    stage: str
    spec: EngineSpec
    work: Work
    fixed_chars: int
    """The largest number of characters that the pack itself adds to a prompt."""

    @property
    def requests(self) -> int:
        """Estimated number of requests."""
        return round(self.work.requests)

    @property
    def tokens(self) -> int:
        """Estimated number of prompt tokens."""
        return round(self.work.prompt_tokens)

    def describe_price(self) -> str:
        """Return the estimated cost as text for the terminal; empty without prices per token."""
        if not self.spec.prices.of_tokens:
            return ""
        cost = self.spec.charged.cost_of(self.tokens, 0, round(self.work.answer_tokens))
        return f", for about {cost:,.3g}{' at half of `prices`' if self.spec.batch else ''}"


@dataclass(frozen=True)
class CheckReport:
    """What a run would read, drop and ask."""

    intakes: dict[Split, Intake]
    estimates: tuple[Estimate, ...]
    training: Work
    """What all LoRA students are trained on, all epochs together."""
    newer: tuple[str, ...] = ()
    """A sentence per model of which the hub has a newer commit than the one in use."""
    serve_lines: tuple[str, ...] = ()
    """A shell command per `vllm` engine that serves its model elsewhere."""

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """All items that a run would drop."""
        return tuple(d for intake in self.intakes.values() for d in intake.dropped)

    @property
    def requests(self) -> int:
        """Estimated number of requests of a run with an empty ledger."""
        return sum(e.requests for e in self.estimates)

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
    intakes = {
        split: read_samples(
            source.manifest,
            source.images,
            pack,
            split,
            video=config.video,
            cache=config.images,
            progress=partial(progress, split),
        )
        for split, source in sets
        if source is not None
    }
    labelled, pool = (intakes[s].kept if s in intakes else () for s in (Split.LABELLED, Split.UNLABELLED))
    estimator = _Estimator(config, pack, labelled, pool)
    estimates = tuple(estimator.list_estimates())
    kept = [sample for intake in intakes.values() for sample in intake.kept]
    most_images = max((len(s.images) for s in kept), default=0)
    most_videos = max((len(s.videos) for s in kept), default=0)
    place = Workplace(ImageCache(config.images), config.output / "logs", most_images, most_videos)
    serve_lines = tuple(_list_serve_lines(config.engines, place))
    newer = tuple(_find_newer_commits(config))
    return CheckReport(intakes, estimates, estimator.measure_training(), newer, serve_lines)


def _list_serve_lines(specs: Iterable[EngineSpec], place: Workplace) -> Iterator[str]:
    for spec in specs:
        if spec.engine == "vllm":
            with suppress(OSError):  # an adapter that is not on this machine
                yield format_serve_line(spec, place)


def _find_newer_commits(config: DistillConfig) -> Iterator[str]:
    loaded = [spec for spec in config.engines if spec.engine in ("vllm", "local")]
    if config.student is not None and not isinstance(config.student, ProbeSpec):
        loaded.append(choose_base_engine(config.student))
    for model in dict.fromkeys(spec.model for spec in loaded if spec.revision is None):
        if found := describe_newer_commit(model, config.ledger):
            yield found


@dataclass
class _Estimator:
    """Counts the requests that a run sends with an empty ledger, stage by stage, in the order of the run."""

    config: DistillConfig
    pack: Pack
    labelled: Sequence[Sample]
    pool: Sequence[Sample]
    known: set[str] = field(default_factory=set[str])
    """Keys of the requests counted so far. The ledger answers a request that is repeated."""

    def list_estimates(self) -> Iterator[Estimate]:
        """Yield an estimate per stage and kind of question."""
        config = self.config
        if config.generator and self.labelled:
            yield from self._estimate_reasons(config.generator)
        if config.student and self.labelled:
            yield from self._estimate_students("correction: students", config.student, self._list_held_out())
        panel = name_teachers(config.panel)
        if any(not spec.is_rule for spec in config.panel) and config.student and self.labelled:
            doubtful = self.labelled[: int(config.correction.teacher_share * len(self.labelled))]
            doubtful = [self.pack.with_neither(s) for s in doubtful]  # which ones is not known yet
            for role, spec in panel.items():
                if not spec.is_rule:
                    most = doubtful[: int((spec.share or 1.0) * len(self.labelled))]
                    limit = "" if spec.share is None else ", at most"
                    yield from self._estimate_teacher(f"correction: {role}{limit}", spec, most)
        if panel and self.pool:
            role, first = next(iter(panel.items()))
            of = f", {role}" if len(panel) > 1 else ""
            for stage, items in (("pseudo-labels: calibration", self.labelled), ("pseudo-labels", self.pool)):
                yield from self._estimate_teacher(f"{stage}{of}", first, items)
                if self.pack.describe_first:
                    yield self._estimate_direct(f"{stage}, without descriptions", first, items)
            if config.student and self.labelled:
                yield from self._estimate_students("pseudo-labels: students", config.student, self.pool)
            for role, spec in list(panel.items())[1:]:
                if not spec.is_rule:
                    share = spec.share or 1.0
                    asked = [s for items in (self.labelled, self.pool) for s in items[: int(share * len(items))]]
                    limit = "" if spec.share is None else ", at most"
                    yield from self._estimate_teacher(f"pseudo-labels: {role}{limit}", spec, asked)
            if config.generator and config.rationales.teach_thinking:
                yield self._estimate_shortening(config.generator, max(spec.thinking_tokens for spec in config.panel))
            yield from self._estimate_judge("pseudo-labels: judge", self.pool)

    def _estimate_reasons(self, spec: EngineSpec) -> Iterator[Estimate]:
        settings = self.config.rationales
        prompter = self._make_prompter(spec)
        sampling = self.config.ask.sample_reason(0, self.config.seed)
        first = self._count("rationales", spec, (prompter.rationale(s, s.given or "", sampling) for s in self.labelled))
        yield first
        again = sum(_REJECTED**attempt for attempt in range(1, self.config.ask.attempts))
        if again:
            yield replace(first, stage="rationales: asked again", work=first.work * again)
        if settings.support is not Support.NO:
            bare = {"parts": ()} if settings.support is Support.REASON_ALONE else {}
            items = (s.model_copy(update=bare) for s in self.labelled)
            yield self._count("rationales: support", spec, (prompter.conclude(s, s.id, sampling) for s in items))
        yield from self._estimate_judge("rationales: judge", self.labelled)

    def _estimate_judge(self, stage: str, items: Sequence[Sample]) -> Iterator[Estimate]:
        """Yield the estimate for judging a reason per item, if there is a judge."""
        if (spec := self.config.rationales.judge) is None:
            return
        self.pack.require_template("judge.jinja", "rationales.judge")
        prompter, ask, seed = self._make_prompter(spec), self.config.ask, self.config.seed
        requests = (make_request(prompter, s, s.given or s.labels[0], s.id, ask, seed) for s in items)
        yield self._count(stage, spec, requests)

    def _estimate_teacher(self, stage: str, spec: EngineSpec, items: Sequence[Sample]) -> Iterator[Estimate]:
        if not items:
            return
        prompter, seed, ask = self._make_prompter(spec), self.config.seed, self.config.ask
        if self.pack.describe_first:
            describing = Sampling(max_tokens=ask.max_tokens, seed=seed)
            yield self._count(f"{stage}, descriptions", spec, (prompter.describe(s, describing) for s in items))
        yield self._count(stage, spec, (prompter.classify(s, ask.sample_votes(seed), show_box=True) for s in items))

    def _estimate_shortening(self, spec: EngineSpec, tokens: int) -> Estimate:
        """Return the estimate for shortening thoughts of `tokens` / 2 tokens for each item of the pool."""
        prompter, sampling = self._make_prompter(spec), self.config.ask.sample_reason(0, self.config.seed)
        thoughts = "\u2026" * round(tokens / 2 * CHARS_PER_TOKEN)
        requests = (prompter.rationale(s, s.labels[0], sampling, thoughts=thoughts) for s in self.pool)
        return self._count("pseudo-labels: reasons from thoughts", spec, requests)

    def _estimate_direct(self, stage: str, spec: EngineSpec, items: Sequence[Sample]) -> Estimate:
        prompter, sampling = self._make_prompter(spec), Sampling(seed=self.config.seed)
        return self._count(stage, spec, (prompter.classify(s, sampling, with_reason=False) for s in items))

    def _estimate_students(self, stage: str, spec: AnyStudent, items: Sequence[Sample]) -> Iterator[Estimate]:
        """Yield the estimate for fold students, each of which is another model in each repeat."""
        if isinstance(spec, ProbeSpec):  # which asks no model
            return
        engine = choose_base_engine(spec)
        requests = make_label_requests(self._make_prompter(engine), items, with_reason=spec.reasons == "always")
        one = self._count(stage, engine, requests)
        yield replace(one, work=one.work * spec.repeats)

    def measure_training(self) -> Work:
        """Return what all LoRA students are trained on, all epochs together."""
        spec = self.config.student
        if not isinstance(spec, StudentSpec) or not self.labelled:
            return Work()
        engine = choose_base_engine(spec)
        patch_size = _find_patch_size(engine)
        requests = make_label_requests(self._make_prompter(engine), self.labelled, with_reason=spec.reasons != "never")
        once = sum((measure_work(request, patch_size) for request in requests), Work())
        if spec.steps is not None:
            updates = spec.steps * spec.batch_size * spec.gradient_accumulation
            return once * (updates * spec.folds * spec.repeats / len(self.labelled))
        return once * (spec.epochs * (spec.folds - 1) * spec.repeats)

    def _list_held_out(self) -> list[Sample]:
        """Return the labelled items whose label has as many items as there are folds; others are never held out."""
        student = self.config.student
        sizes = Counter(s.given for s in self.labelled)
        return [s for s in self.labelled if student is not None and sizes[s.given] >= student.folds]

    def _make_prompter(self, spec: EngineSpec) -> Prompter:
        return make_prompter(self.pack, spec, texts={})  # text on images is not read here

    def _count(self, stage: str, spec: EngineSpec, requests: Iterable[Request]) -> Estimate:
        """Return the estimate for the requests that have not been counted before."""
        work = Work()
        fixed_chars = 0
        patch_size = _find_patch_size(spec)
        for request in requests:
            fixed_chars = max(fixed_chars, count_fixed_chars(request))
            if request.key not in self.known:
                self.known.add(request.key)
                work += measure_work(request, patch_size)
        return Estimate(stage, spec, work, fixed_chars)


def _find_patch_size(spec: EngineSpec) -> int:
    """Return the patch size of the model, or that of Qwen2-VL if neither the hub nor this machine has its files."""
    try:
        return find_patch_size(spec)
    except EngineError:
        return 14
