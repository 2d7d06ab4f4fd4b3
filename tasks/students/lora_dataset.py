"""Make the rows that trl trains a LoRA student on."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from tasks.models.image_cache import ImageCache, compute_grids, open_images
from tasks.prompts.box_forms import BoxForm, fill_in_boxes
from tasks.prompts.prompter import Prompter
from tasks.prompts.recordings import describe_times
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import Sample, Sampling


def make_dataset(
    prompter: Prompter,
    taught: Sequence[tuple[Sample, str]],
    patch_size: int,
    images: ImageCache | None = None,
    form: BoxForm | None = None,
    soft: Mapping[str, Mapping[str, float]] = {},
) -> Dataset:
    """Return one row of prompt, completion, images and recordings per item, for trl's SFTTrainer (lora_collator.py).

    Rows are made on demand, so that no decoded images are kept in memory. A resized image takes 20 ms from the cache
    `images`, and 80 ms from its source. If `form` is given, reasons end with the boxes of their items in that form.

    With `soft`, rows also have `shares`: for an item that is taught without a reason, the answer for each label and the
    label's probability in `soft`, which is keyed by item id; else nothing.
    """
    limits = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels}
    open_resized = open_images if images is None else images.open
    requests = [prompter.classify(s, Sampling(), with_reason=bool(reason)) for s, reason in taught]

    def answer(sample: Sample, reason: str) -> str:
        boxes = sample.boxes if form is not None and reason else ()
        text = prompter.answer(sample.given or "", reason, len(boxes))
        if form is None or not boxes:
            return text
        grids = compute_grids(sample.images, form, patch_size=patch_size, **limits)
        return fill_in_boxes(text, boxes, sample.images, form, grids)

    def share(sample: Sample, reason: str) -> list[tuple[str, float]]:
        known = {} if reason else soft.get(sample.id, {})
        return [(prompter.answer(label), p) for label, p in known.items()]

    answers = [answer(*pair) for pair in taught]

    def row(i: int) -> dict[str, Any]:
        request = requests[i]
        content = [e if e["type"] == "text" else {"type": e["type"]} for e in make_user_content(request)]
        frame_limits = request.frame_bounds
        videos = [open_resized(video.frames, patch_size=patch_size, **frame_limits) for video in request.videos]
        return {
            "prompt": [*make_system_turn(request), {"role": "user", "content": content}],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": answers[i]}]}],
            "images": open_resized(request.images, patch_size=patch_size, **limits) or [],
            "videos": videos,
            "video_metadata": describe_times(request.videos),
            **({"shares": share(*taught[i])} if soft else {}),
        }

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        made = [row(i) for i in batch["index"]]
        return {key: [r[key] for r in made] for key in made[0]}

    return Dataset.from_dict({"index": list(range(len(taught)))}).with_transform(rows)
