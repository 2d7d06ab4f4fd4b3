"""Opening images at the size the model will see them: one route of resizing for training and asking."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps
from qwen_vl_utils import process_vision_info  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from tasks.records import ImageRef


def open_images(
    images: Sequence[ImageRef], *, min_pixels: int, max_pixels: int, patch_size: int = 14
) -> list[Image.Image] | None:
    """Decode images: upright (EXIF), RGB, sides multiples of two patches, area between the bounds; None for none.

    qwen_vl_utils and transformers resize slightly differently (mean 0.0014, at most 0.18 of normalised pixel values),
    so everything goes through qwen_vl_utils here and the processors are told not to resize. Raises OSError when a file
    can't be read.
    """
    content: list[dict[str, Any]] = []
    for image in images:
        with Image.open(image.path) as file:
            # qwen_vl_utils ignores the orientation that phones write
            upright = ImageOps.exif_transpose(file).convert("RGBA" if "transparency" in file.info else file.mode)
        content.append({"type": "image", "image": upright, "min_pixels": min_pixels, "max_pixels": max_pixels})
    return process_vision_info([{"role": "user", "content": content}], image_patch_size=patch_size)[0]  # pyright: ignore
