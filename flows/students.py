"""Train one student per fold, reuse finished ones, and have each predict items that it was not trained on.

Each training is a task run. They run at the same time on the nodes of a cluster and on several GPUs of this machine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prefect import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from flows.asking import prepare_prompter, read_texts
from flows.config import CommonConfig
from flows.runners import Shard, make_task, run_as_task, run_shards, split_into_parts
from flows.stage import show_table
from flows.ui import Progress
from tasks.errors import ConfigError
from tasks.items.duplicates import find_near_duplicates
from tasks.items.image_hashes import ImageHashes
from tasks.items.key_frames import list_pictures
from tasks.models.ask import Asker
from tasks.models.engines.child import run_in_child
from tasks.models.engines.gpus import list_gpus
from tasks.models.engines.identity import identify_checkpoint, make_prompter
from tasks.models.image_cache import ImageCache
from tasks.models.pins import choose_revision
from tasks.packs.pack import Pack
from tasks.prompts.pointing import add_boxes
from tasks.records import Prediction, Sample, digest_of
from tasks.storage.rows import read_rows
from tasks.students.asking import choose_base_engine, choose_student_engine, make_label_requests
from tasks.students.external import ExternalRecipe, read_trainer_files
from tasks.students.fold_students import Student, Training, plan_trainings, read_seen_content
from tasks.students.folds import Folds, assign_unseen, check_out_of_fold, make_folds, read_folds, write_folds
from tasks.students.lora import LoraRecipe
from tasks.students.lora_memory import Memory
from tasks.students.loss_curves import Progress as StepProgress
from tasks.students.probe import ProbeRecipe, predict_probe
from tasks.students.probe_features import Vector, describe_images
from tasks.students.settings import AnyStudent, ExternalSpec, ProbeSpec, StudentSpec
from tasks.students.student_folder import is_trained, read_facts
from tasks.students.worker_pool import TrainingPool

STAGE = "correction"
"""The stage whose folder contains the folds and the students."""

_TRAIN = "train student"
_IMAGES_PER_SHARD = 500
"""Images per task run when features are computed. This takes about 30 seconds, including decoding."""

Run = dict[str, Prediction]
"""The predictions of one repeat, keyed by sample id."""


@dataclass(frozen=True)
class OutOfFold:
    """The students' predictions for items that they were not trained on."""

    folds: tuple[Folds, ...]
    """The folds of each repeat."""
    runs: tuple[Run, ...]
    """The predictions of each repeat. Items that are in every training set have none."""

    def name_models(self, identity: str) -> str:
        """Return the names of the students that predicted this item, one per repeat, separated by semicolons."""
        return "; ".join(run[identity].model for run in self.runs if identity in run)


@dataclass
class FoldStudents:
    """The students of a labelled set, one per fold and repeat, and the data about images that they share."""

    config: CommonConfig
    spec: AnyStudent
    pack: Pack
    asker: Asker
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Maps image digest to the text on the image."""
    vectors: dict[str, Vector] = field(default_factory=dict[str, Vector])
    """Maps image digest to the features of the image. Only probes use them."""

    def predict_out_of_fold(self, samples: Sequence[Sample]) -> OutOfFold:
        """Split `samples`, train the missing students, and have each predict its held-out fold.

        Raises LeakageError if a student would be asked about an item that, by its record, it was trained on.
        """
        config, folder = self.config, self.config.output / STAGE
        links = run_as_task("near-duplicates", f"look for near-duplicates among {len(samples)} items", lambda: (
            find_near_duplicates(samples, ImageHashes(config.images / "hashes.sqlite"))
        ))  # fmt: skip
        folds: list[Folds] = []
        runs: list[Run] = []
        for repeat in range(self.spec.repeats):
            recorded = read_folds(folder, repeat, self.spec.folds)
            split = make_folds(samples, self.spec.folds, config.seed, repeat=repeat, recorded=recorded, links=links)
            write_folds(split, folder, repeat)
            _log_split(split)
            folds.append(split)
            runs.append(self._predict_held_out(samples, split.fold_of, repeat)[0])
        return OutOfFold(tuple(folds), tuple(runs))

    def predict_pool(
        self, labelled: Sequence[Sample], pool: Sequence[Sample]
    ) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """Return the students' predictions for `labelled` and for `pool`, each as one dict per repeat.

        Each item is predicted by a student that was not trained on it; `assign_unseen` chooses the student for an item
        of the pool. Items that every student was trained on are missing, and so are repeats without recorded folds.
        Raises LeakageError like `predict_out_of_fold`.
        """
        of_labelled: list[Run] = []
        of_pool: list[Run] = []
        for repeat in range(self.spec.repeats):
            fold_of = read_folds(self.config.output / STAGE, repeat, self.spec.folds)
            if fold_of is not None:
                run, students = self._predict_held_out(labelled, fold_of, repeat)
                of_labelled.append(run)
                of_pool.append(self.ask(students, pool, assign_unseen(pool, read_seen_content(students))))
        return tuple(of_labelled), tuple(of_pool)

    def _predict_held_out(
        self, samples: Sequence[Sample], fold_of: Mapping[str, int], repeat: int
    ) -> tuple[Run, Sequence[Student]]:
        students = self.train(samples, fold_of, repeat)
        check_out_of_fold(samples, fold_of, read_seen_content(students))
        return self.ask(students, samples, fold_of), students

    def list_trained(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Sequence[Student]]]:
        """Yield each repeat whose folds are recorded, with its students. Those that are missing are trained."""
        for repeat in range(self.spec.repeats):
            if (fold_of := read_folds(self.config.output / STAGE, repeat, self.spec.folds)) is not None:
                yield repeat, self.train(samples, fold_of, repeat)

    def train(self, samples: Sequence[Sample], fold_of: Mapping[str, int], repeat: int) -> Sequence[Student]:
        """Train each missing student on all samples outside its fold, and return the students of all folds."""
        config, spec = self.config, self.spec
        if isinstance(spec, ProbeSpec):
            self._read_images(samples)
            recipe = ProbeRecipe(spec, spec.seed_of(repeat), self.texts, self.vectors)
        else:
            prompter = prepare_prompter(config, self.pack, choose_base_engine(spec), samples)
            self.texts |= prompter.texts
            revision = choose_revision(spec.base, spec.revision, config.ledger)
            cache = ImageCache(config.images)
            rationales = _read_rationales(config, spec)
            samples = add_boxes(samples, rationales)
            reasons = {i: p.reason for i, p in rationales.items()}
            if isinstance(spec, ExternalSpec):
                recipe = ExternalRecipe(spec, prompter, spec.seed_of(repeat), reasons, cache, revision)
            else:
                recipe = LoraRecipe(spec, prompter, repeat, reasons, revision=revision, images=cache)
        trainings = plan_trainings(recipe, samples, fold_of, spec.folds, config.output / STAGE / "students")
        estimate = partial(recipe.estimate_memory, samples) if isinstance(recipe, LoraRecipe) else None
        self._run_trainings(trainings, repeat, estimate)
        students = tuple(training.student for training in trainings)
        _show_losses(students)
        return students

    def ask(self, students: Sequence[Student], items: Sequence[Sample], fold_of: Mapping[str, int]) -> Run:
        """Have each item predicted by the student of its fold. Items without a fold are skipped."""
        spec = self.spec
        items = [s for s in items if s.id in fold_of]
        self._read_images(items)
        predictions: Run = {}
        for student in students:
            its = [s for s in items if fold_of[s.id] == student.fold]
            if isinstance(spec, ProbeSpec):
                found = list(predict_probe(student.folder, its, self.texts, self.vectors))
            else:
                engine = choose_student_engine(spec, student.folder, [s.folder for s in students])
                prompter = make_prompter(self.pack, engine, self.texts)
                requests = make_label_requests(prompter, its, with_reason=spec.reasons == "always")
                what = f"student {student.fold + 1} of {len(students)} predicts its fold"
                source = f"student/fold={student.fold}"
                found = self.asker.ask_for_labels(requests, engine, what, source=source, model=prompter.model)
            predictions |= {p.sample_id: p for p in found}
        return predictions

    def _read_images(self, samples: Sequence[Sample]) -> None:
        """Read the text on the images, and for probes compute their features, unless they are already known."""
        new = [s for s in samples if any(m.sha256 not in self.texts for m in (*s.images, *s.videos))]
        self.texts |= read_texts(self.config, self.pack, new)
        if isinstance(self.spec, ProbeSpec) and self.spec.images != "none":
            new = [s for s in samples if any(p.sha256 not in self.vectors for p in list_pictures(s))]
            self.vectors |= self._describe_images(self.spec, new)

    def _describe_images(self, spec: ProbeSpec, samples: Sequence[Sample]) -> dict[str, Vector]:
        """Compute the features of the images in task runs, and return a dict that maps image digest to features."""
        several = [samples] if self.config.runner == "threads" else split_into_parts(samples, _IMAGES_PER_SHARD)
        gpus = self._count_gpus_per_fold() if spec.embedding_model else 0
        on_gpu_here = spec.embedding_model is not None and self.config.runner == "threads" and bool(list_gpus())
        if samples and (gpus or on_gpu_here):
            self.asker.close_engine()
        describe = partial(describe_images, spec, folder=self.config.images)
        works = [partial(describe, part) for part in several if part]
        works = [partial(run_in_child, work) for work in works] if on_gpu_here else works
        shards = [Shard("compute image features", work) for work in works]
        found = run_shards(self.config, "image features", shards, gpus=gpus)
        return {digest: vector for vectors in found for digest, vector in vectors.items()}

    def _run_trainings(
        self, trainings: Sequence[Training], repeat: int, estimate: Callable[[], Memory | None] | None
    ) -> None:
        """Train the missing students, each in a task run. On a cluster each training occupies its own GPUs.

        On this machine a LoRA student is trained in a child process if there is a GPU or `parallel` is above 1;
        `estimate` returns the GPU memory that it needs.
        """
        waiting: dict[str, Training] = {}
        for training in trainings:
            which = f"{training.student.fold + 1} of {len(trainings)}"
            if is_trained(training.student.folder):
                folder = training.student.folder.name
                get_run_logger().info("fold %s: reusing the finished student %s", which, folder)
            else:
                which += f", repeat {repeat + 1}" if repeat else ""
                waiting[f"train student {which} on {training.items} items"] = training
        if not waiting:
            return
        self.asker.close_engine()
        here = self.config.runner == "threads"
        if here and estimate and isinstance(self.spec, StudentSpec) and (self.spec.parallel > 1 or list_gpus()):
            _train_side_by_side(waiting, TrainingPool(self.spec.parallel, len(waiting), estimate))
            return
        gpus = 0 if isinstance(self.spec, ProbeSpec) else self._count_gpus_per_fold()
        shards = [Shard(what, partial(_run_training, training.run, what)) for what, training in waiting.items()]
        for _ in run_shards(self.config, _TRAIN, shards, gpus=gpus):
            pass

    def _count_gpus_per_fold(self) -> int:
        """Return how many GPUs a training uses on a cluster: one for LoRA, `gpus_per_replica` for other trainers."""
        if self.config.runner == "threads":
            return 0
        most = self.config.runner.gpus_per_replica
        return min(1, most) if isinstance(self.spec, StudentSpec) else most


def _train_side_by_side(trainings: Mapping[str, Training], pool: TrainingPool) -> None:
    """Run the trainings, keyed by title, in the pool's processes, and each in a task run."""
    # In this order, because an error ends the processes first and the threads that wait for them next.
    with ThreadPoolTaskRunner(max_workers=pool.size) as threads, pool:
        futures = [
            threads.submit(make_task(_TRAIN, what, partial(_run_training, partial(pool.train, training.run), what)), {})
            for what, training in trainings.items()
        ]
        for future in futures:
            future.result()


def _run_training(run: Callable[[StepProgress], object], what: str) -> None:
    with Progress(STAGE, what, 1) as progress:

        def show(done: int, total: int, _: float) -> None:
            progress.total = max(total, 1)
            progress.move_to(done)

        run(show)


def identify_training_inputs(config: CommonConfig, spec: AnyStudent) -> dict[str, str]:
    """Return the digest of each input that students learn from, other than items, settings and base model."""
    if isinstance(spec, ProbeSpec):
        name = spec.embedding_model
        return {"embedding model": identify_checkpoint(name, None)} if name is not None else {}
    found: dict[str, str] = {}
    if isinstance(spec, ExternalSpec):
        found["trainer files"] = digest_of(read_trainer_files(spec))
    if rationales := _read_rationales(config, spec):
        taught = {i: [p.reason, *(box.model_dump() for box in p.boxes)] for i, p in rationales.items()}
        found["reasons"] = digest_of(taught)
    return found


def _read_rationales(config: CommonConfig, spec: StudentSpec | ExternalSpec) -> dict[str, Prediction]:
    """Return a dict that maps sample id to the reason that the stage `rationales` found; empty if none is taught."""
    if spec.reasons == "never":
        return {}
    file = config.output / "rationales" / "kept.parquet"
    if not file.exists():
        raise ConfigError(
            f"student.reasons: {file} is missing; set `generator` so that stage rationales runs first, or set "
            "`student.reasons: never`"
        )
    return {p.sample_id: p for p in read_rows(file, Prediction)}


def _show_losses(students: Sequence[Student]) -> None:
    """Show the students' losses in one table artifact, with about thirty points per student, and log their times."""
    rows: list[dict[str, Any]] = []
    for student in students:
        facts = read_facts(student.folder)
        if (waiting := facts.get("waiting_share")) is not None:
            spent = f"{facts['steps']} updates in {facts['seconds']} s, {waiting:.0%} of them waiting for images"
            get_run_logger().info("fold %d: %s", student.fold + 1, spent)
        curve = list(zip(facts.get("steps_logged", []), facts.get("losses", []), strict=False))
        rows += [{"fold": student.fold, "step": s, "loss": loss} for s, loss in curve[:: max(1, len(curve) // 30)]]
    if rows:
        show_table("student-losses", rows, "Training loss of the fold students by step")


def _log_split(split: Folds) -> None:
    log = get_run_logger()
    if split.rare:
        log.warning(
            "labels with too few items to hold out: their items are in every training set and go to review: %s",
            split.rare,
        )
    if split.largest_groups:
        log.info(
            "%d groups of similar items; largest groups: %s", split.groups, [len(ids) for ids in split.largest_groups]
        )
    if split.moved:
        log.info("%d items are in a different fold than in the last run", len(split.moved))
