"""Ask models from a stage's flow: prepare prompts and images, collect answers in task runs, respect the run's budget.

Each task run collects `shard_size` answers. The engine keeps working while one task run ends and the next begins, so
it is never idle between them.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import islice

from prefect import get_run_logger
from prefect.runtime import flow_run

from flows.api import load_api_key
from flows.config import CommonConfig
from flows.runners import Shard, open_where_configured, run_as_task, run_shards, split_into_parts
from flows.ui import Progress
from tasks.errors import AnswersPending, BudgetSpent
from tasks.items.key_frames import join_frame_texts, list_pictures
from tasks.items.ocr import Found, OcrReader, Reading, read_images
from tasks.media import ImageRef
from tasks.models.ask import Answer, Asker
from tasks.models.costs import Budget
from tasks.models.engines.engine import Engine, Workplace
from tasks.models.engines.identity import make_prompter
from tasks.models.engines.spec import EngineSpec
from tasks.models.failures import FailureLimit
from tasks.models.image_cache import ImageCache, fill_cache
from tasks.models.ledger.ledger import Ledger
from tasks.models.pins import pin_model
from tasks.models.qwen_vl import find_patch_size
from tasks.models.settings import BudgetSettings
from tasks.packs.pack import Pack
from tasks.prompts.parsing import has_only_thinking
from tasks.prompts.prompter import LONG_PROMPT, Prompter, count_fixed_chars
from tasks.prompts.thinking import ADVICE
from tasks.rationales.grounding import FindLines
from tasks.records import USABLE, Request, Sample

_IMAGES_PER_SHARD = 400
"""About 30 seconds of work: 80 ms per image (42 ms to decode a screenshot, 37 ms to resize it)."""
_TEXTS_PER_SHARD = 16
"""About 30 seconds of work: RapidOCR takes 0.5 to 2.5 s per screenshot on one core."""

_BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)
"""The run's budget. All stages of the run share it, although each stage is a separate flow."""
_BUDGETS: dict[str, Budget] = {}
"""Budgets, keyed by flow run id. Prefect retries a failed run in the same process; the retry uses what is left."""


@contextmanager
def charge_budget(limits: BudgetSettings) -> Generator[Budget]:
    """Context manager: yield a budget that pays for all questions asked in the block, including those of subflows.

    Asking raises BudgetSpent when a limit is reached. A retried flow run continues with the budget that is left.
    """
    budget = _BUDGETS.setdefault(flow_run.id, Budget(limits)) if flow_run.id else Budget(limits)
    before = _BUDGET.set(budget)
    try:
        yield budget
    finally:
        _BUDGET.reset(before)


def make_budget_error() -> BudgetSpent:
    """Return the error for a stage that stopped because the budget was spent."""
    budget = _BUDGET.get()
    return BudgetSpent("the budget is spent; run again to continue") if budget is None else budget.make_error()


@contextmanager
def open_asker(config: CommonConfig, stage: str, samples: Iterable[Sample] = ()) -> Generator[Asker]:
    """Context manager: open the ledger, and yield an asker for `stage`'s questions that respects the run's budget."""
    shown = [(len(s.images), len(s.videos)) for s in samples]
    most_images = max((images for images, _ in shown), default=0)
    most_videos = max((videos for _, videos in shown), default=0)

    def open_engine(spec: EngineSpec) -> Engine:
        log = get_run_logger()
        load_api_key(spec)
        spec = pin_model(spec, config.ledger)
        at = f" at {spec.revision}" if spec.revision else ""
        log.info("opening %s engine with %s%s", spec.engine, spec.adapter or spec.model, at)
        place = Workplace(
            ImageCache(config.images), config.output / "logs", most_images, most_videos, ledger=config.ledger
        )
        engine = open_where_configured(config, spec, place)
        for note in engine.notes:
            log.info("%s", note)
        return engine

    def collect(stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]:
        _warn_of_long_prompt(requests[0], config.pack)
        reused = asker.tally.reused
        found: list[Answer] = []
        pending: list[AnswersPending] = []

        def draw_shard() -> list[Answer]:
            drawn: list[Answer] = []
            try:
                for answer in islice(stream, config.shard_size):
                    drawn.append(answer)
                    progress.advance(dropped=answer.outcome not in USABLE)
            except AnswersPending as error:  # raised outside the task run, which would be shown as failed
                pending.append(error)
            return drawn

        with Progress(stage, what, len(requests), lambda: asker.costs_so_far().cost) as progress:
            while len(found) < len(requests):
                last = min(len(found) + config.shard_size, len(requests))
                title = f"{what}: {len(found) + 1} to {last} of {len(requests)}"  # the graph's font has no dash
                found += run_as_task(f"ask: {stage}", title, draw_shard)
                if pending:
                    get_run_logger().info("%s", pending[0])
                    raise pending[0]
            for _ in stream:  # run the generator to its end, so that it stores what is left
                raise AssertionError(f"{what}: more answers than questions")
        if (spent := sum(map(has_only_thinking, found))) > 0:
            get_run_logger().warning("%s: %d of %d replies contain %s", what, spent, len(requests), ADVICE)
        if (again := asker.tally.reused - reused) > 0:
            get_run_logger().info("%s: %d of %d answers reused from the ledger", what, again, len(requests))
        return found

    with Ledger(config.ledger) as ledger:
        if ledger.notice:
            get_run_logger().warning("%s", ledger.notice)
        limit = FailureLimit(stage, config.max_failed_share)
        try:
            with Asker(ledger, open_engine, collect, _BUDGET.get(), limit) as asker:
                yield asker
        finally:
            if ledger.damage:
                get_run_logger().warning("%s", ledger.damage)


def _warn_of_long_prompt(request: Request, pack: str) -> None:
    if (chars := count_fixed_chars(request)) > LONG_PROMPT:
        get_run_logger().warning(
            "the fixed part of the `%s` prompt has %d characters, and answers get worse beyond about %d: shorten the "
            "glosses or examples of pack `%s`",
            request.purpose, chars, LONG_PROMPT, pack,
        )  # fmt: skip


# --- preparing prompts and images -----------------------------------------------------------------------------


def prepare_prompter(config: CommonConfig, pack: Pack, spec: EngineSpec, samples: Sequence[Sample]) -> Prompter:
    """Return a prompter that writes the prompts of `pack` for the model `spec`. On a cluster, resize images first."""
    _prepare_images(config, spec, samples)
    return make_prompter(pack, spec, read_texts(config, pack, samples))


def read_texts(config: CommonConfig, pack: Pack, samples: Iterable[Sample]) -> dict[str, str]:
    """Read the text on each image and recording, and return a dict that maps digest to text.

    The dict is empty for a pack without `ocr`. One task run does the work; on a cluster several do.
    """
    items = list(samples) if pack.ocr is not None else []
    images = list({picture.sha256: picture for sample in items for picture in list_pictures(sample)}.values())
    if not images:
        return {}

    def read() -> dict[str, str]:
        reader = OcrReader(config.texts, reading=_get_cluster_reader(config))
        with Progress("ocr", "reading the text on images", len(images)) as progress:
            texts = reader.read(images, progress=lambda done, total: progress.move_to(done))
        for unread in reader.unread.values():
            get_run_logger().warning("%s: its text cannot be read: %s", unread.path, unread.detail)
        return texts | join_frame_texts(items, texts)

    if config.runner != "threads":
        return read()
    return run_as_task("read text", f"read the text on {len(images)} images", read)


def find_line_finder(config: CommonConfig, pack: Pack) -> FindLines | None:
    """Return a function that finds the lines of text on images that `read_texts` read; None without `ocr`."""
    return OcrReader(config.texts).find_lines if pack.ocr is not None else None


def _prepare_images(config: CommonConfig, spec: EngineSpec, samples: Iterable[Sample]) -> None:
    """On a cluster, resize the images of `samples` to the size that the engine of `spec` needs.

    On one machine, engines resize images while they wait for answers. If an image cannot be resized, the engine
    reports that later, for the item it belongs to.
    """
    images = _list_images(samples)
    if config.runner == "threads" or spec.engine == "scripted" or not images:
        return
    bounds = {"min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels, "patch_size": find_patch_size(spec)}
    cache = ImageCache(config.images)
    shards = [
        Shard(f"resize {len(part)} images", partial(fill_cache, cache, part, **bounds))
        for part in split_into_parts(images, _IMAGES_PER_SHARD)
    ]
    failed = 0
    with Progress("images", "resizing images", len(shards)) as progress:
        for faults in run_shards(config, "prepare images", shards):
            failed += faults
            progress.advance()
    if failed:
        get_run_logger().warning("%d of %d images cannot be resized", failed, len(images))


def _get_cluster_reader(config: CommonConfig) -> Reading | None:
    """Return a function that reads text from images on the cluster, or None if this machine does that."""
    if config.runner == "threads":
        return None

    def read(images: Sequence[ImageRef], processes: int) -> Iterator[Found]:
        shards = [
            Shard(f"read the text on {len(part)} images", partial(_read_part, part))
            for part in split_into_parts(images, _TEXTS_PER_SHARD)
        ]
        for found in run_shards(config, "read text", shards):
            yield from found

    return read


def _read_part(images: Sequence[ImageRef]) -> list[Found]:
    return list(read_images(images, processes=1))


def _list_images(samples: Iterable[Sample]) -> list[ImageRef]:
    """Return the distinct images of `samples`."""
    return list({image.sha256: image for sample in samples for image in sample.images}.values())
