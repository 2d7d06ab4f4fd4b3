"""Give tokens of recordings the positions with which Qwen2-VL and Qwen2.5-VL were trained, as vLLM does.

transformers 5.19 continues after an image or recording at the larger side of its grid. The positions of a recording of
more pairs of frames than that then occur again in the text behind it; with Qwen2.5-VL's seconds in the positions, that
is nearly every recording. Qwen's own code, and vLLM's, continues after the largest position in any dimension.
"""

from itertools import groupby
from types import MethodType
from typing import Any

import torch
from torch import Tensor

_IMAGE, _VIDEO = 1, 2
"""What `mm_token_type_ids` contains at the tokens of images and of recordings."""


def correct_positions(model: Any) -> None:
    """Make a model of transformers compute the positions of recordings as above, when it is trained and asked.

    Qwen3-VL needs no correction: each pair of its frames is an image of its own.
    """
    if model.config.model_type in ("qwen2_vl", "qwen2_5_vl"):
        model.model.get_rope_index = MethodType(_compute_positions, model.model)


def _compute_positions(
    self: Any,
    input_ids: Tensor,
    mm_token_type_ids: Tensor,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    second_per_grid_ts: Any = None,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Return the positions in time, height and width, and what each row's next position is ahead of its length."""
    vision = self.config.vision_config
    rate = getattr(vision, "tokens_per_second", 1.0)
    grids = {
        _IMAGE: iter([] if image_grid_thw is None else image_grid_thw.tolist()),
        _VIDEO: iter([] if video_grid_thw is None else video_grid_thw.tolist()),
    }
    seconds = None if second_per_grid_ts is None else iter(torch.as_tensor(second_per_grid_ts).tolist())
    positions = torch.zeros((3, *input_ids.shape), dtype=torch.long)
    kept = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    ahead: list[int] = []
    for row, mask in enumerate(kept.bool().cpu()):
        pieces: list[Tensor] = []
        start = 0
        for kind, run in groupby(mm_token_type_ids[row].cpu()[mask].tolist()):
            length = len(list(run))
            while length > 0:  # tokens of two images may touch
                if kind in grids:
                    interval = rate * (1.0 if seconds is None else next(seconds)) if kind == _VIDEO else 1.0
                    piece = _place_grid(next(grids[kind]), vision.spatial_merge_size, interval)
                else:
                    piece = torch.arange(length).expand(3, -1)
                pieces.append(piece + start)
                start += int(piece.max()) + 1
                length -= piece.shape[1]
        positions[:, row, mask] = torch.cat(pieces, dim=1)
        ahead.append(start - input_ids.shape[1])
    return positions.to(input_ids.device), torch.tensor(ahead, device=input_ids.device)[:, None]


def _place_grid(grid: list[int], merge: int, interval: float) -> Tensor:
    """Return the positions of a grid's tokens, from 0; its time steps are `interval` apart and rounded down."""
    pairs, rows, columns = grid[0], grid[1] // merge, grid[2] // merge
    time = (torch.arange(pairs, dtype=torch.float64) * interval).long()
    sides = torch.meshgrid(time, torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack(sides).reshape(3, -1)
