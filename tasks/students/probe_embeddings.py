"""Compute a probe's image features with the vision tower of a model; the only part of a probe that needs torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tasks.media import ImageRef
from tasks.models.engines.local.loading import load_model
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import open_images
from tasks.students.probe_features import Vector

_MIN_PIXELS = 56 * 56
_MAX_PIXELS = 256 * 28 * 28
"""Maximum area in pixels of an image for the vision tower."""


def make_embedder(model_name: str) -> Callable[[ImageRef], Vector]:
    """Return a function that maps an image to the mean output of the model's vision tower, with length 1.

    Raises EngineError when the model cannot be loaded.
    """
    model, processor = load_model(EngineSpec(engine="local", model=model_name))
    reader: Any = processor.image_processor
    reader.do_resize = False  # open_images has done it

    def embed(image: ImageRef) -> Vector:
        pictures = open_images([image], min_pixels=_MIN_PIXELS, max_pixels=_MAX_PIXELS, patch_size=reader.patch_size)
        pixels: Any = reader(images=pictures, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            seen = model.get_image_features(**pixels).pooler_output[0]
        mean: Vector = seen.float().mean(0).cpu().numpy()
        return mean / max(float(np.linalg.norm(mean)), 1e-9)

    return embed
