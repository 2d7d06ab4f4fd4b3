"""What a cluster does before models are asked: images brought to size, and the text on them read, a shard a task run.

On one machine neither is done ahead: engines bring images to size while they wait for answers, and a pool of processes
reads the text.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from prefect import get_run_logger

from flows.config import CommonConfig
from flows.runners import Shard, parts, run_shards
from flows.ui import Progress
from tasks.items.ocr import Found, Reading, read_images
from tasks.models.engines.engine import EngineSpec
from tasks.models.image_cache import ImageCache, prepare
from tasks.records import ImageRef, Sample

_IMAGES_A_SHARD = 400
"""Half a minute: some 80 ms each (DESIGN.md: 42 to decode a screenshot, 37 to resize it)."""
_TEXTS_A_SHARD = 16
"""Half a minute: RapidOCR takes 2 to 4 s a screenshot and core."""


def prepare_images(config: CommonConfig, spec: EngineSpec, samples: Sequence[Sample]) -> None:
    """With a cluster, bring all images of `samples` to the size at which `spec`'s engine asks for them.

    One that can't be is left to the engine, which then says so of its item.
    """
    images = list({image.sha256: image for sample in samples for image in sample.images}.values())
    if config.runner == "threads" or spec.engine == "scripted" or not images:
        return
    from tasks.models.engines.local.loading import patch_size  # it brings torch

    bounds = {"min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels, "patch_size": patch_size(spec)}
    cache = ImageCache(config.images)
    shards = [
        Shard(f"bring {len(part)} images to size", partial(prepare, cache, part, **bounds))
        for part in parts(images, _IMAGES_A_SHARD)
    ]
    failed = 0
    with Progress("images", "bring images to size", len(shards)) as progress:
        for faults in run_shards(config, "prepare images", shards):
            failed += faults
            progress.advance()
    if failed:
        get_run_logger().warning("%d of %d images can't be brought to size", failed, len(images))


def reading_for(config: CommonConfig) -> Reading | None:
    """How the text on images is read: on the cluster where there is one; None: by this machine's processes."""
    if config.runner == "threads":
        return None

    def read(images: Sequence[ImageRef], processes: int) -> Iterator[Found]:
        shards = [
            Shard(f"read the text on {len(part)} images", partial(_read, part))
            for part in parts(images, _TEXTS_A_SHARD)
        ]
        for found in run_shards(config, "read text", shards):
            yield from found

    return read


def _read(images: Sequence[ImageRef]) -> list[Found]:
    return list(read_images(images, processes=1))
