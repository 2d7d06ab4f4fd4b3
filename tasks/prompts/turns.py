"""A request's turns, as content list and as text: the same words in training, asking and export."""

import re

from tasks.records import ImagePart, Request

IMAGE_TOKEN = "<image>"
_READ_AS_MORE = re.compile(r"<(image|video|audio|/?img|\|[^<>|\s]+\|)>|\{\{idx\}\}")


def system_turn(request: Request) -> list[dict[str, str]]:
    """The turns before the user's: none, or the one ``{"role": "system", "content": text}`` of a pack that has it."""
    return [{"role": "system", "content": escape_placeholder(request.system)}] if request.system else []


def user_content(request: Request) -> list[dict[str, str]]:
    """The content list of the request's one user turn, in order.

    Returns elements ``{"type": "text", "text": …}`` and ``{"type": "image", "image": path}``; empty texts are left out.
    """
    content = [{"type": "text", "text": escape_placeholder(request.prefix)}]
    for part in request.parts:
        if isinstance(part, ImagePart):
            content.append({"type": "image", "image": part.image.path})
        else:
            content.append({"type": "text", "text": escape_placeholder(part.text)})
    content.append({"type": "text", "text": escape_placeholder(request.suffix)})
    return [element for element in content if element.get("text") != ""]


def user_text(request: Request) -> str:
    """The same user turn as one string, each image as the token `<image>`.

    A literal `<image>` in the item's own text or in a template would be counted as an image by trainers' readers, and
    a literal `<|im_end|>` ends the turn, so both stand in full-width brackets here and in `user_content` alike: what is
    trained is what is asked.
    """
    return "".join(element.get("text", IMAGE_TOKEN) for element in user_content(request))


def escape_placeholder(text: str) -> str:
    """`text` in which nothing is read as more than text: such words get full-width brackets.

    They are the placeholders `<image>`, `<video>` and `<audio>`, which LLaMA-Factory and ms-swift count in any text;
    `<img>` and `</img>`, between which ms-swift looks for a file; special tokens, `<|im_end|>` and its kin, which every
    tokenizer takes for the real ones; and `{{idx}}`, in whose place LLaMA-Factory puts the turn's number.
    """
    return _READ_AS_MORE.sub(_in_full_width, text)


def _in_full_width(found: re.Match[str]) -> str:
    return f"＜{found[1]}＞" if found[1] else "｛｛idx｝｝"
