"""A request's one user turn, as a content list and as text: the same words in training, asking and export."""

import re

from tasks.records import ImagePart, Request

IMAGE_TOKEN = "<image>"
_PLACEHOLDER = re.compile("<(image|video|audio)>")


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

    A literal `<image>` in the item's own text or in a template would be counted as an image by trainers' readers, so
    it stands in full-width brackets here and in `user_content` alike: what is trained is what is asked.
    """
    pieces = [escape_placeholder(request.prefix)]
    pieces += [IMAGE_TOKEN if isinstance(p, ImagePart) else escape_placeholder(p.text) for p in request.parts]
    pieces.append(escape_placeholder(request.suffix))
    return "".join(pieces)


def escape_placeholder(text: str) -> str:
    """`text` with each literal `<image>` in full-width brackets, so that no reader takes it for a picture.

    LLaMA-Factory counts `<video>` and `<audio>` in the same way, so these too.
    """
    return _PLACEHOLDER.sub(r"＜\1＞", text)
