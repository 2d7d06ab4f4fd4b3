"""Write the training set of a student that LLaMA-Factory or ms-swift trains, in that trainer's format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tasks.dataset.decisions import decide_labelled, make_example
from tasks.dataset.export.conversation import mark_boxes
from tasks.dataset.export.llamafactory import write_dataset_info
from tasks.dataset.export.swift import describe_videos, open_answer_with_thoughts
from tasks.media import BoxForm, ImageRef
from tasks.models.image_cache import ImageCache, compute_grids
from tasks.prompts.box_forms import fill_in_boxes
from tasks.prompts.prompter import Prompter
from tasks.prompts.recordings import compute_frame_pixels
from tasks.records import Example, Sample
from tasks.storage.json_lines import write_json, write_json_lines


def write_data(
    folder: Path,
    name: str,
    trainer: str,
    examples: Sequence[Example],
    *,
    thinks: bool,
    boxes: "SeenBoxes | None" = None,
) -> Path:
    """Write `examples` to `folder` in the format of `trainer` (`llamafactory` or `swift`), and return the file.

    `thinks` is whether the student's base is a thinking model, and `boxes` says how boxes are written for it.
    """
    rows: list[dict[str, object]] = []
    for example in examples:
        messages = mark_boxes(example).messages()
        if boxes is not None:
            messages[-1]["content"] = boxes.fill_in(messages[-1]["content"], example)
        row: dict[str, object] = {"messages": messages, "images": [image.path for image in example.images]}
        if example.videos:
            frames = [[frame.path for frame in video.frames] for video in example.videos]
            row |= describe_videos(example, frames) if trainer == "swift" else {"videos": frames}
        rows.append(row)
    if trainer == "llamafactory":
        file = folder / f"{name}.json"
        write_json(file, rows)
        write_dataset_info(folder, {name: any(example.videos for example in examples)})
    else:
        for row in rows if thinks else ():
            open_answer_with_thoughts(row)
        file = folder / f"{name}.jsonl"
        write_json_lines(file, rows)
    return file


@dataclass(frozen=True)
class SeenBoxes:
    """How a student writes boxes: in its generation's form, on images of the size at which it sees them."""

    form: BoxForm
    bounds: Mapping[str, int]
    """Those of `compute_sides`."""

    def fill_in(self, answer: str, example: Example) -> str:
        """Return the answer with the example's boxes in place of their marks.

        The trainers neither know nor change them, because they get images that already have this size.
        """
        grids = compute_grids(example.images, self.form, **self.bounds)
        return fill_in_boxes(answer, example.boxes, example.images, self.form, grids)


def make_student_examples(
    prompter: Prompter, taught: Sequence[tuple[Sample, str]], images: ImageCache | None, patch_size: int
) -> list[Example]:
    """Return one example per item: the classify prompt, answered with the given label, after the reason if it has one.

    If `images` is given, the examples refer to the cache's image files, which already have the size that the student
    will see later. Otherwise the trainer would resize the images, with slightly different results.
    """
    bounds = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels, "patch_size": patch_size}
    examples: list[Example] = []
    for sample, reason in taught:
        given = decide_labelled(sample, None)._replace(reason=reason)
        pointing = sample if reason else sample.model_copy(update={"boxes": ()})
        example = make_example(pointing, given, prompter)
        if images is not None:
            resized = partial(_take_resized, images=images, **bounds)
            most = compute_frame_pixels(sample.videos, min_pixels=prompter.min_pixels, max_pixels=prompter.max_pixels)
            shrunk = partial(resized, max_pixels=most)
            videos = tuple(v.model_copy(update={"frames": tuple(map(shrunk, v.frames))}) for v in sample.videos)
            example = example.model_copy(update={"images": tuple(map(resized, sample.images)), "videos": videos})
        examples.append(example)
    return examples


def _take_resized(image: ImageRef, images: ImageCache, **bounds: int) -> ImageRef:
    return image.model_copy(update={"path": str(images.file(image, **bounds).resolve())})
