"""Write the training set of a student that LLaMA-Factory or ms-swift trains, in that trainer's format."""

from collections.abc import Sequence
from pathlib import Path

from tasks.dataset.decisions import decide_labelled, make_example
from tasks.dataset.export.conversation import mark_boxes
from tasks.dataset.export.llamafactory import write_dataset_info
from tasks.dataset.export.swift import open_answer_with_thoughts
from tasks.models.image_cache import ImageCache
from tasks.prompts.prompter import Prompter
from tasks.records import Example, Sample
from tasks.storage.json_lines import write_json, write_json_lines


def write_data(folder: Path, name: str, trainer: str, examples: Sequence[Example], *, thinks: bool) -> Path:
    """Write `examples` to `folder` in the format of `trainer` (`llamafactory` or `swift`), and return the file.

    `thinks` is whether the student's base is a thinking model.
    """
    rows: list[dict[str, object]] = [
        {"messages": mark_boxes(example).messages(), "images": [image.path for image in example.images]}
        for example in examples
    ]
    if trainer == "llamafactory":
        file = folder / f"{name}.json"
        write_json(file, rows)
        write_dataset_info(folder, [name])
    else:
        for row in rows if thinks else ():
            open_answer_with_thoughts(row)
        file = folder / f"{name}.jsonl"
        write_json_lines(file, rows)
    return file


def make_label_examples(
    prompter: Prompter, train: Sequence[Sample], images: ImageCache | None, patch_size: int
) -> list[Example]:
    """Return one example per item: the classify prompt without a reason, answered with the given label.

    If `images` is given, the examples refer to the cache's image files, which already have the size that the student
    will see later. Otherwise the trainer would resize the images, with slightly different results.
    """
    bounds = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels, "patch_size": patch_size}
    examples: list[Example] = []
    for sample in train:
        seen = sample.images
        if images is not None:
            seen = tuple(i.model_copy(update={"path": str(images.file(i, **bounds).resolve())}) for i in seen)
        given = decide_labelled(sample, None)
        unboxed = sample.model_copy(update={"boxes": ()})
        examples.append(make_example(unboxed, given, prompter).model_copy(update={"images": seen}))
    return examples
