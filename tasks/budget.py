"""How many tokens a request costs, by arithmetic: no pixel is touched and no model asked."""

from qwen_vl_utils import smart_resize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from tasks.records import ImagePart, Request

_TOKEN_PIXELS = 28 * 28
_WRAPPER_TOKENS = 24
"""The chat template's own tokens around one user turn with the default system turn."""
_CHARS_PER_TOKEN = 1.6
"""Chinese text under Qwen2's tokenizer: 1.5 to 1.8 characters a token; an estimate, for `check` only."""


def image_tokens(width: int, height: int, *, min_pixels: int, max_pixels: int) -> int:
    """Exact number of tokens of an image of that size (pixels) under the given bounds on its area.

    Source: Qwen2-VL's smart_resize, as published in qwen_vl_utils; 28×28 pixels are one token, two more frame it.
    """
    h, w = smart_resize(height, width, factor=28, min_pixels=min_pixels, max_pixels=max_pixels)
    return h * w // _TOKEN_PIXELS + 2


def estimate_prompt_tokens(request: Request) -> int:
    """About how many tokens the request's prompt has: images exactly, text by its length."""
    chars = len(request.prefix) + len(request.suffix)
    images = 0
    for part in request.parts:
        if isinstance(part, ImagePart):
            image = part.image
            images += image_tokens(
                image.width, image.height, min_pixels=request.min_pixels, max_pixels=request.max_pixels
            )
        else:
            chars += len(part.text)
    return _WRAPPER_TOKENS + images + round(chars / _CHARS_PER_TOKEN)
