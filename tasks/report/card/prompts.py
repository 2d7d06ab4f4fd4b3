"""Render the prompts that a run's models received, for one item of each task."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_user_text
from tasks.records import Request, Sample, Sampling
from tasks.storage.rows import StoredRows

_SAMPLES = ("samples/labelled", "samples/unlabelled")


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt as a model receives it, except that `<image>` stands for each image."""

    name: str
    """A title that says which model is asked what about which item."""
    text: str
    answer: str = ""
    """The answer that a student is trained to give. Empty for prompts that are not used for training."""


def render_prompts(pack: Pack, output: Path) -> tuple[RenderedPrompt, ...]:
    """Return the pack's prompts for the first item of each task in the run under `output`.

    Prompts contain no text that was read from images, are not shortened, and have a placeholder as the reason. Raises
    PackError, which names the file, if a template cannot be rendered.
    """
    prompter = Prompter(pack, "", max_pixels=1, min_pixels=1, texts={})
    return tuple(p for sample in _find_one_sample_per_task(output) for p in _render_prompts(prompter, sample))


def _render_prompts(prompter: Prompter, sample: Sample) -> Iterator[RenderedPrompt]:
    about = f"task {sample.task}, item {sample.id}"
    if sample.labels:
        label = sample.given or sample.labels[0]
        yield _show_request(f"Generator, why the label: {about}", prompter.rationale(sample, label, Sampling()))
        if prompter.pack.describe_first:
            yield _show_request(f"Teacher, what it shows: {about}", prompter.describe(sample, Sampling()))
        yield _show_request(f"Teacher, which label: {about}", prompter.classify(sample, Sampling(), show_box=True))
    answer = sample.given or (sample.labels[0] if sample.labels else "…")
    *turns, last = prompter.training_turns(sample, answer, "…" if sample.labels else "")
    yield RenderedPrompt(f"Student, as trained: {about}", "\n\n".join(t.content for t in turns), last.content)


def _show_request(name: str, request: Request) -> RenderedPrompt:
    return RenderedPrompt(name, make_user_text(request))


def _find_one_sample_per_task(output: Path) -> Iterator[Sample]:
    seen: set[str] = set()
    for folder in _SAMPLES:
        file = output / folder / "kept.parquet"
        for sample in StoredRows(file, Sample) if file.exists() else ():
            if sample.task not in seen:
                seen.add(sample.task)
                yield sample
