"""What a stage flow needs to ask models: prompts and images prepared, an asker, and the run's budget.

Answers are collected in task runs of `shard_size`. A shard is a stretch of the answers, not of the questions: the
engine goes on with the next questions while one task run ends and another begins, so no barrier ever empties it.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import islice

from prefect import get_run_logger
from prefect.runtime import flow_run

from flows.config import CommonConfig
from flows.runners import Shard, open_where_configured, parts, run_as_task, run_shards
from flows.ui import Progress
from tasks.errors import BudgetSpent
from tasks.items.ocr import Found, OcrReader, Reading, read_images
from tasks.models.ask import Answer, Asker
from tasks.models.costs import Budget
from tasks.models.engines.engine import Engine, Workplace
from tasks.models.engines.identity import make_prompter
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache, fill_cache
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import BudgetSettings
from tasks.packs.pack import Pack
from tasks.prompts.prompter import LONG_PROMPT, Prompter, fixed_chars
from tasks.records import USABLE, ImageRef, Request, Sample

_IMAGES_A_SHARD = 400
"""30 seconds: about 80 ms each (42 to decode a screenshot, 37 to resize it)."""
_TEXTS_A_SHARD = 16
"""30 seconds: RapidOCR takes 2 to 4 s per screenshot and core."""

_BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)
"""The running run's budget: its stages are flows of their own, but spend together."""
_BUDGETS: dict[str, Budget] = {}
"""By flow run: Prefect tries a failed run again in the same process, and that try goes on with what is left."""


@contextmanager
def spending(limits: BudgetSettings) -> Generator[Budget]:
    """Charge all asking within the block, subflows included, to one budget; BudgetSpent ends it.

    A flow run that is tried again goes on with the budget of its first try.
    """
    budget = _BUDGETS.setdefault(flow_run.id, Budget(limits)) if flow_run.id else Budget(limits)
    before = _BUDGET.set(budget)
    try:
        yield budget
    finally:
        _BUDGET.reset(before)


def budget_spent() -> BudgetSpent:
    """Return what a run says of a stage that had to stop."""
    budget = _BUDGET.get()
    return (
        BudgetSpent("the budget is spent; the next run continues from here") if budget is None else budget.make_error()
    )


@contextmanager
def open_asker(config: CommonConfig, stage: str, samples: Iterable[Sample] = ()) -> Generator[Asker]:
    """Open the ledger and yield what asks `stage`'s questions about `samples`, within the run's budget."""
    most_images = max((len(s.images) for s in samples), default=0)

    def open_engine(spec: EngineSpec) -> Engine:
        log = get_run_logger()
        log.info("opening %s engine with %s", spec.engine, spec.adapter or spec.model)
        place = Workplace(ImageCache(config.images), config.output / "logs", most_images)
        engine = open_where_configured(config, spec, place)
        for note in engine.notes:
            log.info("%s", note)
        return engine

    def collect(stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]:
        _warn_of_long_prompt(requests[0], config.pack)
        reused = asker.tally.reused
        found: list[Answer] = []

        def draw_shard() -> list[Answer]:
            drawn: list[Answer] = []
            for answer in islice(stream, config.shard_size):
                drawn.append(answer)
                progress.advance(dropped=answer.outcome not in USABLE)
            return drawn

        with Progress(stage, what, len(requests), lambda: asker.costs_so_far().cost) as progress:
            while len(found) < len(requests):
                last = min(len(found) + config.shard_size, len(requests))
                title = f"{what}: {len(found) + 1} to {last} of {len(requests)}"  # the graph's font has no dash
                found += run_as_task(f"ask: {stage}", title, draw_shard)
            for _ in stream:  # the stream's own end: what it still has to put away
                raise AssertionError(f"{what}: more answers than questions")
        if (again := asker.tally.reused - reused) > 0:
            get_run_logger().info("%s: %d of %d answers reused from the ledger", what, again, len(requests))
        return found

    with Ledger(config.ledger) as ledger:
        if ledger.notice:
            get_run_logger().warning("%s", ledger.notice)
        with Asker(ledger, open_engine, collect, _BUDGET.get()) as asker:
            yield asker


def _warn_of_long_prompt(request: Request, pack: str) -> None:
    if (chars := fixed_chars(request)) > LONG_PROMPT:
        get_run_logger().warning(
            "the fixed part of the `%s` prompt has %d characters; answers get worse beyond about %d: shorten "
            "glosses or examples of pack `%s`",
            request.purpose, chars, LONG_PROMPT, pack,
        )  # fmt: skip


# --- what is prepared before the first question --------------------------------------------------------------


def prepare_prompter(config: CommonConfig, pack: Pack, spec: EngineSpec, samples: Sequence[Sample]) -> Prompter:
    """Return the prompts of `pack` for the model that `spec` names; a cluster prepares the images first."""
    _prepare_images(config, spec, samples)
    return make_prompter(pack, spec, read_texts(config, pack, samples))


def read_texts(config: CommonConfig, pack: Pack, samples: Iterable[Sample]) -> dict[str, str]:
    """Read the text on each image, as a task run or, on a cluster, several; return it by image digest.

    Nothing is read for a pack that doesn't show it.
    """
    images = _images_of(samples) if pack.ocr is not None else []
    if not images:
        return {}

    def read() -> dict[str, str]:
        reader = OcrReader(config.texts, reading=_reading_on_cluster(config))
        with Progress("ocr", "read the text on images", len(images)) as progress:
            texts = reader.read(images, progress=lambda done, total: progress.to(done))
        for unread in reader.unread.values():
            get_run_logger().warning("no text read off %s: %s, %s", unread.path, unread.fault, unread.detail)
        return texts

    if config.runner != "threads":
        return read()
    return run_as_task("read text", f"read the text on {len(images)} images", read)


def _prepare_images(config: CommonConfig, spec: EngineSpec, samples: Iterable[Sample]) -> None:
    """With a cluster, bring the images of `samples` to the size at which `spec`'s engine asks for them.

    On one machine engines do that while they wait for answers. An image that can't be resized is left to the engine,
    which then says so of its item.
    """
    images = _images_of(samples)
    if config.runner == "threads" or spec.engine == "scripted" or not images:
        return
    from tasks.models.engines.local.loading import read_patch_size  # it brings torch

    bounds = {"min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels, "patch_size": read_patch_size(spec)}
    cache = ImageCache(config.images)
    shards = [
        Shard(f"bring {len(part)} images to size", partial(fill_cache, cache, part, **bounds))
        for part in parts(images, _IMAGES_A_SHARD)
    ]
    failed = 0
    with Progress("images", "bring images to size", len(shards)) as progress:
        for faults in run_shards(config, "prepare images", shards):
            failed += faults
            progress.advance()
    if failed:
        get_run_logger().warning("%d of %d images can't be brought to size", failed, len(images))


def _reading_on_cluster(config: CommonConfig) -> Reading | None:
    """Return how a cluster reads the text on images; None where this machine's processes do."""
    if config.runner == "threads":
        return None

    def read(images: Sequence[ImageRef], processes: int) -> Iterator[Found]:
        shards = [
            Shard(f"read the text on {len(part)} images", partial(_read_part, part))
            for part in parts(images, _TEXTS_A_SHARD)
        ]
        for found in run_shards(config, "read text", shards):
            yield from found

    return read


def _read_part(images: Sequence[ImageRef]) -> list[Found]:
    return list(read_images(images, processes=1))


def _images_of(samples: Iterable[Sample]) -> list[ImageRef]:
    """Return the images of `samples`, each once."""
    return list({image.sha256: image for sample in samples for image in sample.images}.values())
