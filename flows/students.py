"""Train one student per fold, reuse finished ones, and have each predict items that it did not see.

One task run per training: one after another on this machine, all at once on a cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from prefect import get_run_logger

from flows.asking import prepare_prompter, read_texts
from flows.config import AnyStudent, CommonConfig, CorrectionConfig
from flows.runners import Shard, parts, run_as_task, run_shards
from flows.stage import show_table
from flows.ui import Progress
from tasks.errors import ConfigError
from tasks.items.duplicates import find_near_duplicates
from tasks.items.image_hashes import ImageHashes
from tasks.models.ask import Asker
from tasks.models.engines.identity import prompter_for
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import Pack
from tasks.records import Prediction, Sample
from tasks.storage.rows import read_rows
from tasks.students.asking import choose_base_engine, choose_student_engine, make_label_requests
from tasks.students.external import ExternalRecipe
from tasks.students.fold_students import Student, Training, plan_trainings, read_seen_content
from tasks.students.folds import Folds, assign_unseen, check_out_of_fold, make_folds, read_folds, write_folds
from tasks.students.lora import LoraRecipe
from tasks.students.probe import ProbeRecipe, predict_probe
from tasks.students.probe_features import Vector, describe_images
from tasks.students.settings import ExternalSpec, ProbeSpec, StudentSpec
from tasks.students.student_folder import is_trained, read_facts

STAGE = "correction"
"""The stage whose folder holds folds and students."""

_IMAGES_PER_SHARD = 500
"""Items per task run of image features: half a minute, with the decoding."""

Run = dict[str, Prediction]
"""One repeat's predictions by sample id."""


@dataclass(frozen=True)
class OutOfFold:
    """What students say about items that they did not see."""

    folds: tuple[Folds, ...]
    """One split per repeat."""
    runs: tuple[Run, ...]
    """One per repeat; without the items that are in every training set."""

    def models(self, identity: str) -> str:
        """Return the students that judged this item, one per repeat."""
        return "; ".join(run[identity].model for run in self.runs if identity in run)


@dataclass(frozen=True)
class Trained:
    """The students of a split, and what was read off their items' images."""

    spec: AnyStudent
    students: tuple[Student, ...]
    texts: Mapping[str, str]
    """The text on each image, by digest."""
    images: Mapping[str, Vector]
    """The features of each image, by digest; for probes alone."""


def predict_out_of_fold(config: CorrectionConfig, pack: Pack, samples: Sequence[Sample], asker: Asker) -> OutOfFold:
    """Split the labelled set, train the students that are not there yet, and have each predict its held-out fold.

    Raises LeakageError before a student is asked about an item that its own record says it saw.
    """
    folder, spec = config.output / STAGE, config.student
    links = run_as_task("near-duplicates", f"look for near-duplicates among {len(samples)} items", lambda: (
        find_near_duplicates(samples, ImageHashes(config.images / "hashes.sqlite"))
    ))  # fmt: skip
    folds: list[Folds] = []
    runs: list[Run] = []
    for repeat in range(spec.repeats):
        recorded = read_folds(folder, repeat, spec.folds)
        split = make_folds(samples, spec.folds, config.seed, repeat=repeat, recorded=recorded, links=links)
        write_folds(split, folder, repeat)
        _log_split(split)
        trained = train_students(config, spec, pack, samples, split.fold_of, repeat, asker)
        check_out_of_fold(samples, split.fold_of, read_seen_content(trained.students))
        folds.append(split)
        runs.append(ask_students(config, pack, trained, samples, split.fold_of, asker))
    return OutOfFold(tuple(folds), tuple(runs))


def predict_pool(
    config: CommonConfig,
    spec: AnyStudent,
    pack: Pack,
    labelled: Sequence[Sample],
    pool: Sequence[Sample],
    asker: Asker,
) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Have correction's students predict `labelled`, out of fold, and `pool`, as `assign_unseen` says; both by repeat.

    Items that every student saw are missing, and so is a repeat whose folds are not recorded. Raises LeakageError like
    `predict_out_of_fold`.
    """
    of_labelled: list[Run] = []
    of_pool: list[Run] = []
    for repeat in range(spec.repeats):
        fold_of = read_folds(config.output / STAGE, repeat, spec.folds)
        if fold_of is None:
            continue
        trained = train_students(config, spec, pack, labelled, fold_of, repeat, asker)
        seen = read_seen_content(trained.students)
        check_out_of_fold(labelled, fold_of, seen)
        of_labelled.append(ask_students(config, pack, trained, labelled, fold_of, asker))
        of_pool.append(ask_students(config, pack, trained, pool, assign_unseen(pool, seen), asker))
    return tuple(of_labelled), tuple(of_pool)


def train_students(
    config: CommonConfig,
    spec: AnyStudent,
    pack: Pack,
    samples: Sequence[Sample],
    fold_of: Mapping[str, int],
    repeat: int,
    asker: Asker,
) -> Trained:
    """Train the students of a split that are not there yet, each on all samples but its fold's."""
    images: dict[str, Vector] = {}
    if isinstance(spec, ProbeSpec):
        texts = read_texts(config, pack, samples)
        images = _describe_images(config, spec, samples, asker)
        recipe = ProbeRecipe(spec, spec.seed_of(repeat), texts, images)
    else:
        prompter = prepare_prompter(config, pack, choose_base_engine(spec), samples)
        texts = dict(prompter.texts)
        if isinstance(spec, ExternalSpec):
            recipe = ExternalRecipe(spec, prompter, spec.seed_of(repeat), ImageCache(config.images))
        else:
            recipe = LoraRecipe(spec, prompter, repeat, _read_reasons(config, spec))
    trainings = plan_trainings(recipe, samples, fold_of, spec.folds, config.output / STAGE / "students")
    _run_trainings(config, spec, trainings, repeat, asker)
    students = tuple(training.student for training in trainings)
    _show_losses(students)
    return Trained(spec, students, texts, images)


def ask_students(
    config: CommonConfig,
    pack: Pack,
    trained: Trained,
    items: Sequence[Sample],
    fold_of: Mapping[str, int],
    asker: Asker,
) -> Run:
    """Have the student of each item's fold predict it; items without a fold are not asked about."""
    spec = trained.spec
    items = [s for s in items if s.id in fold_of]
    # the pool's images are not among those of the items that the students were trained on
    texts = dict(trained.texts)
    unread = [s for s in items if any(image.sha256 not in texts for image in s.images)]
    if pack.ocr is not None and unread:
        texts |= read_texts(config, pack, unread)
    images = dict(trained.images)
    if isinstance(spec, ProbeSpec):
        unseen = [s for s in items if any(image.sha256 not in images for image in s.images)]
        images |= _describe_images(config, spec, unseen, asker)
    predictions: Run = {}
    for student in trained.students:
        its = [s for s in items if fold_of[s.id] == student.fold]
        if isinstance(spec, ProbeSpec):
            found = list(predict_probe(student.folder, its, texts, images))
        else:
            engine = choose_student_engine(spec, student.folder, [s.folder for s in trained.students])
            prompter = prompter_for(pack, engine, texts)
            with_reason = isinstance(spec, StudentSpec) and spec.reasons == "always"
            requests = make_label_requests(prompter, its, with_reason=with_reason)
            what = f"student {student.fold + 1} of {len(trained.students)} predicts its fold"
            source = f"student/fold={student.fold}"
            found = asker.ask_for_labels(requests, engine, what, source=source, model=prompter.model)
        predictions |= {p.sample_id: p for p in found}
    return predictions


def _run_trainings(
    config: CommonConfig, spec: AnyStudent, trainings: Sequence[Training], repeat: int, asker: Asker
) -> None:
    """Run the trainings whose student is not there yet, one task run each; on a cluster each holds its GPUs."""
    log = get_run_logger()
    shards: list[Shard[None]] = []
    for training in trainings:
        which = f"{training.student.fold + 1} of {len(trainings)}"
        if is_trained(training.student.folder):
            log.info("fold %s: finished student reused (%s)", which, training.student.folder.name)
        else:
            which += f", repeat {repeat + 1}" if repeat else ""
            what = f"train student {which} on {training.items} items"
            shards.append(Shard(what, partial(_run_training, training.run, STAGE, what)))
    if shards:
        asker.close_engine()
    gpus = 0 if isinstance(spec, ProbeSpec) else _gpus_per_fold(config, spec)
    for _ in run_shards(config, "train student", shards, gpus=gpus):
        pass


def _run_training(run: Callable[[Callable[[int, int, float], None]], object], stage: str, what: str) -> None:
    with Progress(stage, what, 1) as progress:

        def show(done: int, total: int, _: float) -> None:
            progress.total = max(total, 1)
            progress.to(done)

        run(show)


def _gpus_per_fold(config: CommonConfig, spec: AnyStudent) -> int:
    """Return the GPUs that a fold's training holds on a cluster: a LoRA student one, a foreign trainer a replica's."""
    if config.runner == "threads":
        return 0
    most = config.runner.gpus_per_replica
    return min(1, most) if isinstance(spec, StudentSpec) else most


def _describe_images(
    config: CommonConfig, spec: ProbeSpec, samples: Sequence[Sample], asker: Asker
) -> dict[str, Vector]:
    """Return the features of the samples' images by digest, made in task runs."""
    pictured = [s for s in samples if s.images]
    if not pictured or spec.images == "none":
        return {}
    several = [pictured] if config.runner == "threads" else parts(pictured, _IMAGES_PER_SHARD)
    gpus = _gpus_per_fold(config, spec) if spec.embedding_model else 0
    if gpus:
        asker.close_engine()
    images: dict[str, Vector] = {}
    shards = [Shard("look at the images", partial(describe_images, spec, part)) for part in several]
    for found in run_shards(config, "image features", shards, gpus=gpus):
        images |= found
    return images


def _read_reasons(config: CommonConfig, spec: StudentSpec) -> dict[str, str]:
    """Return why each item has its given label, by sample id, as the stage `rationales` found."""
    if spec.reasons == "never":
        return {}
    file = config.output / "rationales" / "kept.parquet"
    if not file.exists():
        raise ConfigError(f"student.reasons: {file} is missing; run `rationales` first (set `generator`)")
    return {p.sample_id: p.reason for p in read_rows(file, Prediction)}


def _show_losses(students: Sequence[Student]) -> None:
    """Show the students' loss curves as one table artifact, some thirty points each."""
    rows: list[dict[str, object]] = []
    for student in students:
        facts = read_facts(student.folder)
        curve = list(zip(facts.get("steps_logged", []), facts.get("losses", []), strict=False))
        rows += [{"fold": student.fold, "step": s, "loss": loss} for s, loss in curve[:: max(1, len(curve) // 30)]]
    if rows:
        show_table("student-losses", rows, "Loss of the fold students by step")


def _log_split(split: Folds) -> None:
    log = get_run_logger()
    if split.rare:
        log.warning(
            "labels with too few items to be held out are in every training set and go to review: %s", split.rare
        )
    if split.largest_groups:
        log.info("%d groups of alike items; the largest: %s", split.groups, [len(ids) for ids in split.largest_groups])
    if split.moved:
        log.info("%d items could not keep their recorded fold", len(split.moved))
