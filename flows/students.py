"""Fold students of a stage: trained a fold a task run, finished ones reused, then each asked about its own fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prefect import get_run_logger

from flows.asking import Asking
from flows.config import CorrectionConfig
from flows.runners import Shard, parts, run_as_task, run_shards
from flows.stage import prompter_for, read_texts
from flows.training import Plan, Student, Work, gpus_a_fold, student_facts, train_students
from tasks.correction.decide import check_out_of_fold
from tasks.errors import ConfigError
from tasks.items.image_hashes import Looks
from tasks.items.near_duplicates import near_duplicates
from tasks.models.engines.identity import model_identity
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.records import Prediction, Sample, Sampling
from tasks.storage.stages import read_rows
from tasks.students.external import external_checkpoint, external_digest, train_external
from tasks.students.fold_files import recorded_folds, write_folds
from tasks.students.folds import Folds, make_folds
from tasks.students.lora import student_digest, train_student
from tasks.students.probe import predict_probe, probe_digest, probe_images, train_probe
from tasks.students.probe_features import Vector
from tasks.students.settings import ExternalSpec, ProbeSpec, StudentSpec, base_spec

_SEEDS_A_REPEAT = 1000
_LOOKS_A_SHARD = 500
"""Half a minute, with the decoding."""


@dataclass(frozen=True)
class OutOfFold:
    """What students say about items that they did not see."""

    folds: tuple[Folds, ...]
    """One split a repeat."""
    runs: tuple[dict[str, Prediction], ...]
    """A repeat's predictions by sample id; none of items that are in every training set."""

    def models(self, identity: str) -> str:
        """The students that judged this item, one a repeat."""
        return "; ".join(run[identity].model for run in self.runs if identity in run)


def out_of_fold(
    config: CorrectionConfig, pack: Pack, samples: Sequence[Sample], asking: Asking, folder: Path
) -> OutOfFold:
    """Train all students under `folder`/students and ask them; raises LeakageError before a student is asked about an
    item that its own record says it saw."""
    links = run_as_task("near-duplicates", f"look for near-duplicates among {len(samples)} items", lambda: (
        near_duplicates(samples, Looks(config.images / "hashes.sqlite"))
    ))  # fmt: skip
    folds: list[Folds] = []
    runs: list[dict[str, Prediction]] = []
    for repeat in range(config.student.repeats):
        recorded = recorded_folds(folder, repeat, config.student.folds)
        split = make_folds(samples, config.student.folds, config.seed, repeat=repeat, recorded=recorded, links=links)
        write_folds(split, folder, repeat)
        _report(split)
        students, ask = trained_students(config, pack, samples, split, repeat, folder / "students", asking)
        check_out_of_fold(
            samples, split.fold_of, {s.fold: set(student_facts(s)["trained_on_content"]) for s in students}
        )
        predictions: dict[str, Prediction] = {}
        for student in students:
            held_out = [s for s in samples if split.fold_of.get(s.id) == student.fold]
            predictions |= {p.sample_id: p for p in ask(student, students, held_out)}
        folds.append(split)
        runs.append(predictions)
    return OutOfFold(tuple(folds), tuple(runs))


_Ask = Callable[[Student, Sequence[Student], Sequence[Sample]], Sequence[Prediction]]


def trained_students(
    config: CorrectionConfig,
    pack: Pack,
    samples: Sequence[Sample],
    split: Folds,
    repeat: int,
    folder: Path,
    asking: Asking,
) -> tuple[list[Student], _Ask]:
    """The students of a split, trained under `folder` if need be, and how one of them is asked about items."""
    spec = config.student
    if isinstance(spec, ProbeSpec):
        return _probes(spec, config, pack, samples, split, repeat, folder, asking)
    asked = base_spec(spec)
    prompter = prompter_for(config, pack, model_identity(asked), asked, samples)
    texts = dict(prompter.texts)
    reasons = _reasons(config) if isinstance(spec, StudentSpec) and spec.reasons != "never" else {}
    with_reason = isinstance(spec, StudentSpec) and spec.reasons == "always"
    plan = _plan(spec, prompter, reasons, repeat, folder, ImageCache(config.images))
    students = train_students(config, asking, samples, split, repeat, plan, gpus=gpus_a_fold(config))

    def ask(student: Student, students: Sequence[Student], items: Sequence[Sample]) -> Sequence[Prediction]:
        _read_more(config, pack, items, texts)
        mine = _weights(asked, spec, student, students)
        model = model_identity(mine)
        prompts = Prompter(
            pack, model, max_pixels=mine.max_pixels, min_pixels=mine.min_pixels, context_length=mine.context_length,
            texts=texts,
        )  # fmt: skip
        sampling = Sampling(label_probabilities=True, max_tokens=96 if with_reason else 8)
        requests = [prompts.classify(s, sampling, with_reason=with_reason) for s in items]
        what = f"student {student.fold + 1} of {len(students)} predicts its fold"
        return asking.labels(requests, mine, what, source=f"student/fold={student.fold}", model=model)

    return students, ask


def _read_more(config: CorrectionConfig, pack: Pack, items: Sequence[Sample], texts: dict[str, str]) -> None:
    """Add the text on images that are not among the training items': those of the pool."""
    new = [s for s in items if any(image.sha256 not in texts for image in s.images)]
    if pack.ocr is not None and new:
        texts.update(read_texts(config, pack, new))


def _reasons(config: CorrectionConfig) -> dict[str, str]:
    """Why each item has its given label, by sample id, as the stage `rationales` found."""
    file = config.output / "rationales" / "kept.parquet"
    if not file.exists():
        raise ConfigError(f"student.reasons: {file} is missing; run `rationales` first (set `generator`)")
    return {p.sample_id: p.reason for p in read_rows(file, Prediction)}


def _plan(
    spec: StudentSpec | ExternalSpec,
    prompter: Prompter,
    reasons: Mapping[str, str],
    repeat: int,
    folder: Path,
    images: ImageCache,
) -> Plan:
    if isinstance(spec, StudentSpec):
        lora, more = spec, {"repeat": repeat, "reasons": reasons}

        def train_lora(train: Sequence[Sample], fold: int) -> tuple[Path, Work]:
            home = folder / student_digest(lora, prompter, train, fold, **more)
            return home, lambda home, moved: train_student(lora, prompter, train, fold, home, moved, **more)

        return train_lora
    outside, seed = spec, spec.seed + _SEEDS_A_REPEAT * repeat

    def train_outside(train: Sequence[Sample], fold: int) -> tuple[Path, Work]:
        home = folder / external_digest(outside, prompter, train, fold, seed)
        return home, lambda home, moved: train_external(
            outside, prompter, train, fold, seed, home, moved, images=images
        )

    return train_outside


def _weights(
    asked: EngineSpec, spec: StudentSpec | ExternalSpec, student: Student, students: Sequence[Student]
) -> EngineSpec:
    """The engine for one student: its adapter on the base, or its own full weights."""
    if isinstance(spec, StudentSpec):
        found = [(str(s.folder), True) for s in students]
    else:
        found = [(str(path), adapter) for path, adapter in (external_checkpoint(s.folder) for s in students)]
    path, is_adapter = found[[s.fold for s in students].index(student.fold)]
    if not is_adapter:
        return asked.model_copy(update={"model": path, "revision": None})
    several = tuple(p for p, _ in found) if asked.engine == "vllm" else ()
    return asked.model_copy(update={"adapter": path, "adapters": several})


def _probes(
    spec: ProbeSpec,
    config: CorrectionConfig,
    pack: Pack,
    samples: Sequence[Sample],
    split: Folds,
    repeat: int,
    folder: Path,
    asking: Asking,
) -> tuple[list[Student], _Ask]:
    texts = read_texts(config, pack, samples)
    images: dict[str, Vector] = {}
    looked_at: set[str] = set()  # more than `images`: some can't be read

    def features(items: Sequence[Sample] = samples) -> Mapping[str, Vector]:
        new = [s for s in items if any(image.sha256 not in looked_at for image in s.images)]
        looked_at.update(image.sha256 for s in new for image in s.images)
        if new:
            several = [new] if config.runner == "threads" else parts(new, _LOOKS_A_SHARD)
            looks = [Shard("look at the images", partial(probe_images, spec, part)) for part in several]
            gpus = gpus_a_fold(config) if spec.embedding_model else 0
            if gpus:
                asking.rest()
            for found in run_shards(config, "image features", looks, gpus=gpus):
                images.update(found)
        return images

    seed = spec.seed + _SEEDS_A_REPEAT * repeat

    def plan(train: Sequence[Sample], fold: int) -> tuple[Path, Work]:
        home = folder / probe_digest(spec, train, texts, fold, seed)
        return home, lambda home, _: train_probe(spec, train, texts, fold, seed, home, images=images)

    students = train_students(config, asking, samples, split, repeat, plan, before=features)

    def ask(student: Student, students: Sequence[Student], items: Sequence[Sample]) -> Sequence[Prediction]:
        _read_more(config, pack, items, texts)
        return list(predict_probe(student.folder, items, texts, images=features(items)))

    return students, ask


def _report(split: Folds) -> None:
    log = get_run_logger()
    if split.rare:
        log.warning(
            "labels with too few items to be held out are in every training set and go to review: %s", split.rare
        )
    if split.largest:
        log.info("%d groups of alike items; the largest: %s", split.groups, [len(ids) for ids in split.largest])
    if split.moved:
        log.info("%d items could not keep their recorded fold", len(split.moved))
