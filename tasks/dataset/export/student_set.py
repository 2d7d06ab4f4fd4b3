"""The set that an external trainer's student is trained on: labelled items in LLaMA-Factory's or ms-swift's format."""

from collections.abc import Sequence
from pathlib import Path

from tasks.dataset.export.llamafactory import write_llamafactory
from tasks.dataset.export.swift import swift_row
from tasks.models.image_cache import ImageCache
from tasks.prompts.prompter import Prompter
from tasks.records import Example, Origin, Sample
from tasks.storage.json_lines import write_json_lines


def write_data(folder: Path, name: str, trainer: str, examples: Sequence[Example]) -> Path:
    """Write the data set for `trainer` (`llamafactory` or `swift`) and return its file."""
    if trainer == "llamafactory":
        return write_llamafactory(folder, name, examples)[0]
    file = folder / f"{name}.jsonl"
    write_json_lines(file, (swift_row(e, [i.path for i in e.images]) for e in examples))
    return file


def make_label_examples(prompter: Prompter, train: Sequence[Sample], images: ImageCache | None) -> list[Example]:
    """Return each item as the classify prompt without a reason and the answer that names its given label.

    With a cache, images are the files in it, sized as the student will see them: trainers resize a little differently.
    """
    bounds = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels}
    examples: list[Example] = []
    for sample in train:
        seen = sample.images
        if images is not None:
            seen = tuple(i.model_copy(update={"path": str(images.file(i, **bounds).resolve())}) for i in seen)
        label = sample.given or ""
        examples.append(
            Example(
                sample_id=sample.id,
                messages=prompter.training_turns(sample, label),
                images=seen,
                label=label,
                origin=Origin.GIVEN,
                why="given label",
                source=sample.source,
            )
        )
    return examples
