"""The prompts that a run's models were asked, rendered for one of its own items of each task."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_user_text
from tasks.records import Request, Sample, Sampling
from tasks.report.card.rows import rows_of

_SAMPLES = ("samples/labelled", "samples/unlabelled")


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt as a model gets it, images as `<image>`."""

    name: str
    """Who is asked what, about an item of which task."""
    text: str
    answer: str = ""
    """What a student is taught to answer; empty where the answer is the model's own."""


def rendered_prompts(pack: Pack, output: Path) -> tuple[RenderedPrompt, ...]:
    """The pack's prompts for the first item of each task that the run under `output` read.

    Text that is read off images is left out, nothing is shortened, and the reason is a placeholder.
    Raises PackError, naming the file, when a template does not render.
    """
    prompter = Prompter(pack, "", max_pixels=1, min_pixels=1, texts={})
    return tuple(p for sample in _one_of_each_task(output) for p in _prompts(prompter, sample))


def _prompts(prompter: Prompter, sample: Sample) -> Iterator[RenderedPrompt]:
    about = f"task {sample.task}, item {sample.id}"
    if sample.labels:
        label = sample.given or sample.labels[0]
        yield _asked(f"Generator, why the label: {about}", prompter.rationale(sample, label, Sampling()))
        if prompter.pack.describe_first:
            yield _asked(f"Teacher, what it shows: {about}", prompter.describe(sample, Sampling()))
        yield _asked(f"Teacher, which label: {about}", prompter.classify(sample, Sampling()))
    answer = sample.given or (sample.labels[0] if sample.labels else "…")
    *turns, last = prompter.training_turns(sample, answer, "…" if sample.labels else "")
    yield RenderedPrompt(f"Student, as trained: {about}", "\n\n".join(t.content for t in turns), last.content)


def _asked(name: str, request: Request) -> RenderedPrompt:
    return RenderedPrompt(name, make_user_text(request))


def _one_of_each_task(output: Path) -> Iterator[Sample]:
    seen: set[str] = set()
    for folder in _SAMPLES:
        for row in rows_of(output / folder / "kept.parquet", *Sample.model_fields):
            if row["task"] not in seen:
                seen.add(row["task"])
                nested = {name: orjson.loads(row[name]) for name in ("parts", "labels")}
                yield Sample.model_validate({k: v for k, v in row.items() if v is not None} | nested)
