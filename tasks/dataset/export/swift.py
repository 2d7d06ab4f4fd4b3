"""ms-swift's formats: messages and images (version 4), and conversations with `<img>` tags (version 2).

Its reader mends in silence, so the rules are enforced here (ms-swift 4.6.0, swift/template/base.py and
swift/dataset/preprocessor): missing `<image>` tags are put in front and too many only warned about, in the system turn
as well; an `<img>…</img>` in any turn of a row without images becomes an image, or vanishes where there is no such
file; rows that can't be read are deleted unless `strict`; columns that it does not know are dropped.
"""

from collections.abc import Sequence

from tasks.dataset.export.conversation import conversation
from tasks.dataset.export.exports import NotHeld, Reason
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example


def swift_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """A line for ms-swift 4, its images by the given names; raises NotHeld if it would be mended or deleted.

    Relative images are found only with the environment variable ROOT_IMAGE_DIR, which the ready configurations name.
    """
    return {"messages": conversation(example).messages(), "images": list(images)}


def swift2_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """A line for ms-swift 2: each `<image>` is written as `<img>name</img>`; raises NotHeld for what it can't hold.

    Version 4 reads these lines too. Relative images are looked for from the folder in which the trainer is started.
    """
    held = conversation(example)
    if unfit := [name for name in images if "<" in name or "\n" in name]:
        raise NotHeld(example, Reason.PATH_UNFIT, f"{unfit[0]!r} can't stand between <img> tags")
    left = iter(images)
    turns: list[dict[str, str]] = []
    for question, answer in held.turns:
        first, *rest = question.split(IMAGE_TOKEN)
        value = first + "".join(f"<img>{next(left)}</img>{text}" for text in rest)
        turns += [{"from": "user", "value": value}, {"from": "assistant", "value": answer}]
    system = {} if held.system is None else {"system": held.system}
    return {**system, "conversations": turns}
