"""Return a request's turns as a content list or as text. Training, asking and export use the same words."""

import re

from tasks.media import ImagePart, VideoPart
from tasks.records import Request

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<video>"
_TOKENS = {"image": IMAGE_TOKEN, "video": VIDEO_TOKEN}
BOX_TOKEN = "<bbox>"
BOX_EXAMPLE = "<|object_ref_start|>…<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>"
"""A box of Qwen2-VL as its prompts show it. Its special tokens are ours, so they are not escaped."""
_INTERPRETED = re.compile(r"<(image|video|audio|bbox|ref-object|/?img|\|[^<>|\s]+\|)>|\{\{idx\}\}")


def make_system_turn(request: Request) -> list[dict[str, str]]:
    """Return ``[{"role": "system", "content": text}]`` if the pack has a system turn, else an empty list."""
    return [{"role": "system", "content": escape_placeholder(request.system)}] if request.system else []


def make_user_content(request: Request, *, frames_as_images: bool = False) -> list[dict[str, str]]:
    """Return the content list of the request's user turn: prefix, parts and suffix, in this order.

    Its elements are ``{"type": "text", "text": …}``, ``{"type": "image", "image": path}`` and
    ``{"type": "video", "video": path}``, without empty texts. With `frames_as_images`, for a model that takes no
    recordings, each frame is an image.
    """
    content = [{"type": "text", "text": escape_placeholder(request.prefix)}]
    for part in request.parts:
        if isinstance(part, ImagePart):
            content.append({"type": "image", "image": part.image.path})
        elif isinstance(part, VideoPart) and frames_as_images:
            content += [{"type": "image", "image": frame.path} for frame in part.video.frames]
        elif isinstance(part, VideoPart):
            content.append({"type": "video", "video": part.video.path})
        else:
            content.append({"type": "text", "text": escape_placeholder(part.text)})
    content.append({"type": "text", "text": _write_suffix(request)})
    return [element for element in content if element.get("text") != ""]


def make_draft_turns(request: Request, draft: str) -> list[dict[str, str]]:
    """Return the turns after the user's for an answer of which there is a `draft`: this, and the instruction again.

    The list is empty without a draft.
    """
    if not draft:
        return []
    instruction = {"role": "user", "content": _write_suffix(request).strip()}
    return [{"role": "assistant", "content": escape_placeholder(draft)}, instruction]


def make_user_text(request: Request) -> str:
    """Return the request's user turn as one string, with `<image>` for each image and `<video>` for each recording.

    Trainers would count a literal `<image>` in the item's own text or in a template as an image, and a literal
    `<|im_end|>` would end the turn. Both therefore get full-width brackets, here and in `make_user_content`, so that a
    student is trained on exactly what it is asked.
    """
    content = make_user_content(request)
    return "".join(element["text"] if element["type"] == "text" else _TOKENS[element["type"]] for element in content)


def _write_suffix(request: Request) -> str:
    suffix = escape_placeholder(request.suffix)
    return suffix if request.boxes is None else suffix.replace(escape_placeholder(BOX_EXAMPLE), BOX_EXAMPLE)


def escape_placeholder(text: str) -> str:
    """Return `text` with full-width brackets around strings that trainers or tokenizers would interpret.

    These are the placeholders `<image>`, `<video>` and `<audio>`, which LLaMA-Factory and ms-swift count in any text;
    `<bbox>` and `<ref-object>`, which ms-swift replaces by boxes; `<img>` and `</img>`, between which it looks for a
    file; special tokens such as `<|im_end|>`; and `{{idx}}`, which LLaMA-Factory replaces by the turn's number.
    """
    return _INTERPRETED.sub(_use_full_width, text)


def _use_full_width(found: re.Match[str]) -> str:
    return f"＜{found[1]}＞" if found[1] else "｛｛idx｝｝"
