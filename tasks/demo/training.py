"""Full training of a tiny Qwen2-VL on a stream of conversations.

It is bounded by steps, never by the clock: a slow machine takes longer and makes the same model.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from PIL import Image
from torch.utils.data import IterableDataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

BATCH = 32
WARM_UP = 0.06

Report = Callable[[int, int, float], None]
"""Called after every step with (steps done, steps in all, smoothed loss)."""


@dataclass(frozen=True)
class Lesson:
    """One training conversation, rendered by the chat template; its last turn is what is learnt."""

    text: str
    images: tuple[Image.Image, ...] = ()
    long: bool = False
    """Long lessons get batches of their own, so that the short ones are not padded to their length."""


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the learning rate's factor at `step`: a warm-up, under a cosine that ends at 0 after `steps`."""
    warm = (step + 1) / max(1.0, WARM_UP * steps)
    return min(1.0, warm) * 0.5 * (1 + math.cos(math.pi * step / steps))


def group_by_length(lessons: Iterable[Lesson]) -> Iterator[Lesson]:
    """Yield the lessons in an order in which each batch of 32 is all long or all short.

    Sorting by length would save more padding, but puts items of one kind together, and such batches teach far less.
    """
    waiting: dict[bool, list[Lesson]] = {True: [], False: []}
    for lesson in lessons:
        batch = waiting[lesson.long]
        batch.append(lesson)
        if len(batch) == BATCH:
            yield from batch
            batch.clear()


class Collator:
    """Lessons to the model's inputs; images take the engines' route: already sized, so the processor must not resize.

    Left padding puts all answers at the end, so that only the last columns need logits: with 3,000 tokens and
    short answers that is 40 % of a step.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        tokenizer = processor.tokenizer
        self.turn = tokenizer.get_vocab()["<|im_start|>"]
        self.header = len(tokenizer("<|im_start|>assistant\n")["input_ids"])

    def __call__(self, lessons: list[Lesson]) -> dict[str, Any]:
        images = list(chain.from_iterable(lesson.images for lesson in lessons))
        inputs = self.processor(
            text=[lesson.text for lesson in lessons],
            images=images or None,
            do_resize=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        ids = inputs["input_ids"]
        width = ids.shape[1]
        columns = torch.arange(width)
        last_turn = torch.where(ids == self.turn, columns, 0).amax(dim=1, keepdim=True)
        labels = ids.masked_fill(columns < last_turn + self.header, -100)
        keep = width - int(last_turn.min()) - self.header + 1
        return {**inputs, "labels": labels[:, -keep:], "logits_to_keep": keep}


class _Progress(TrainerCallback):
    """Reports each step and the smoothed loss."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.loss = math.nan

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.loss = logs["loss"] if math.isnan(self.loss) else 0.9 * self.loss + 0.1 * logs["loss"]
            self.report(state.global_step, state.max_steps, self.loss)


class _Stream(IterableDataset[Any]):
    """Items as the trainer wants them, in the order in which they are made."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def _run_trainer(
    model: Any,
    items: Iterable[Any],
    collate: Callable[[list[Any]], dict[str, Any]],
    report: Report,
    optimizers: tuple[Any, Any] = (None, None),
    **options: Any,
) -> None:
    """Train `model` in place on batches of 32 `items`; `options` are transformers' training arguments."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=BATCH,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            # dispatching slices every tensor to 32 rows, and patches are many more rows than items
            accelerator_config={"dispatch_batches": False},
            use_cpu=not torch.cuda.is_available(),
            **options,
        )
        dataset: Any = _Stream(items)
        trainer = Trainer(model, arguments, collate, dataset, callbacks=[_Progress(report)], optimizers=optimizers)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def train(
    model: Any, processor: Any, lessons: Iterable[Lesson], *, steps: int, rate: float, seed: int, report: Report
) -> None:
    """Train all of `model` in place on the answers of `lessons` (which must not run out), for `steps` batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_factor, steps=steps))
    items, collate = group_by_length(lessons), Collator(processor)
    _run_trainer(model, items, collate, report, (optimizer, schedule), max_steps=steps, seed=seed)


class _Seeing(torch.nn.Module):
    """The vision tower alone: the mean of an image's tokens should point at its caption's first token.

    The tower's output is what the language model reads in place of token embeddings, and those are tied to its output;
    so a tower that points at a word's embedding is one that a fresh language model understands almost at once.
    """

    def __init__(self, model: Any, candidates: list[int]) -> None:
        super().__init__()
        self.tower = model.model.visual
        words = model.get_input_embeddings().weight[candidates].detach()
        self.register_buffer("words", torch.nn.functional.normalize(words, dim=-1))

    def forward(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, labels: torch.Tensor) -> Any:
        tokens = self.tower(pixel_values, grid_thw=image_grid_thw).pooler_output
        sizes = (image_grid_thw.prod(dim=1) // self.tower.spatial_merge_size**2).tolist()
        means = torch.stack([part.mean(dim=0) for part in tokens.split(sizes)])
        scores = _SHARPNESS * torch.nn.functional.normalize(means, dim=-1) @ cast(torch.Tensor, self.words).T
        return {"loss": torch.nn.functional.cross_entropy(scores, labels)}


_SHARPNESS = 12.0
"""Factor on the cosine, so that a right answer can be a sure one."""


def learn_to_see(
    model: Any,
    processor: Any,
    pictures: Iterable[tuple[Image.Image, str]],
    captions: list[str],
    *,
    steps: int,
    seed: int,
    report: Report,
) -> None:
    """Train the vision tower of `model` in place, for `steps` batches of (image, one of `captions`).

    Without it the tower learns through an untrained language model: after 100 steps 41 % of screens were captioned
    right, against 88 % by the tower alone.
    """
    firsts = [ids[0] for ids in processor.tokenizer(captions)["input_ids"]]

    def collate(batch: list[tuple[Image.Image, str]]) -> dict[str, Any]:
        made = processor.image_processor(images=[image for image, _ in batch], do_resize=False, return_tensors="pt")
        return {**made, "labels": torch.tensor([captions.index(caption) for _, caption in batch])}

    schedule = {"learning_rate": 4e-3, "lr_scheduler_type": "cosine", "warmup_steps": 0.1}
    _run_trainer(_Seeing(model, firsts), pictures, collate, report, max_steps=steps, seed=seed, **schedule)
