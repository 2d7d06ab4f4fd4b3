# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Pictures as the patches that a Qwen-VL reads, and their places among the prompt's tokens.

The same numbers as from the processor, for a quarter of its time: patches are cut as bytes, and become 32-bit numbers,
each twice (a picture is a film of two equal frames), only on the device that reads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """A prompt's pictures as patches."""

    patches: Tensor
    """Bytes of shape (patches, colours, patch side, patch side); patches that are merged stand together."""
    grid: Tensor
    """Whole numbers of shape (pictures, 3): frames, rows and columns of patches."""


def cut(pictures: Sequence[Image.Image], image_processor: Any) -> Cut:
    """The patches of RGB pictures whose sides are multiples of two patches.

    Source: Qwen2-VL's image processor in transformers.
    """
    side, merge = image_processor.patch_size, image_processor.merge_size
    patches: list[Tensor] = []
    grid: list[tuple[int, int, int]] = []
    for picture in pictures:
        rows, columns = picture.height // side, picture.width // side
        squares = np.asarray(picture).reshape(rows // merge, merge, side, columns // merge, merge, side, 3)
        together = np.ascontiguousarray(squares.transpose(0, 3, 1, 4, 6, 2, 5))
        patches.append(torch.from_numpy(together).view(rows * columns, 3, side, side))
        grid.append((1, rows, columns))
    return Cut(torch.cat(patches), torch.tensor(grid))


class Films:
    """Turns patches into what the vision tower takes, on the device that reads it."""

    def __init__(self, image_processor: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._frames: int = image_processor.temporal_patch_size
        scale = image_processor.rescale_factor
        self._mean = torch.tensor(image_processor.image_mean, device=device).mul_(1 / scale)[:, None, None]
        self._std = torch.tensor(image_processor.image_std, device=device).mul_(1 / scale)[:, None, None]
        self._kept = torch.empty(0, device=device, dtype=dtype)

    def of(self, prompts: Sequence[Cut]) -> tuple[Tensor | None, Tensor | None]:
        """The pictures of several prompts and their grids; None where there are none.

        The first has shape (patches, colours x frames x patch side x patch side), and holds until the next call.
        """
        if not prompts:
            return None, None
        grid = torch.cat([p.grid for p in prompts])
        shape = torch.Size((int(grid.prod(dim=1).sum()), 3, self._frames, *prompts[0].patches.shape[2:]))
        films = self._memory(shape.numel()).view(shape)
        start = 0
        for patches in (p.patches for p in prompts):
            values = patches.to(films.device).to(torch.float32).sub_(self._mean).div_(self._std)
            films[start : start + len(patches)] = values[:, :, None]
            start += len(patches)
        return films.view(len(films), -1), grid

    def _memory(self, numbers: int) -> Tensor:
        # fresh memory from the system costs five times the arithmetic on it; a GPU's allocator keeps its own
        if self._kept.device.type != "cpu":
            return self._kept.new_empty(numbers)
        if len(self._kept) < numbers:
            self._kept = self._kept.new_empty(numbers)
        return self._kept[:numbers]


def spread(ids: Sequence[int], image_token: int, images: Cut | None, merge: int) -> list[int]:
    """Token ids with each picture's one placeholder repeated for every square of `merge` by `merge` patches.

    Raises ValueError when there are not as many placeholders as pictures: a text that spells the token.
    """
    counts = [] if images is None else (images.grid.prod(dim=1) // merge**2).tolist()
    if ids.count(image_token) != len(counts):
        raise ValueError(f"{ids.count(image_token)} image tokens in the prompt, {len(counts)} images")
    left = iter(counts)
    return [token for i in ids for token in ([i] * next(left) if i == image_token else (i,))]
