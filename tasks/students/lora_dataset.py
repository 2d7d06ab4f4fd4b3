"""Choose the items and reasons that a LoRA student is trained on, and make rows for trl."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from tasks.errors import ConfigError
from tasks.models.image_cache import open_images
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import Sample, Sampling
from tasks.students.settings import StudentSpec


def choose_taught_items(
    spec: StudentSpec, train: Sequence[Sample], reasons: Mapping[str, str]
) -> list[tuple[Sample, str]]:
    """Return the items to train on, sorted by id, each with its reason, or with "" to train an answer without one.

    With `reasons: always`, items without a reason are left out; raises ConfigError when none is left.
    """
    items = sorted(train, key=lambda s: s.id)
    if spec.reasons == "never":
        return [(s, "") for s in items]
    given = [(s, reasons.get(s.id, "").strip()) for s in items]
    if spec.reasons == "where_given":
        return given
    taught = [(s, reason) for s, reason in given if reason]
    if not taught:
        raise ConfigError(
            f"student.reasons: none of the {len(items)} items of a training part has a reason; "
            "run `rationales` on the labelled set first, or set `reasons: never`"
        )
    return taught


def make_dataset(prompter: Prompter, taught: Sequence[tuple[Sample, str]], patch_size: int) -> Dataset:
    """Return one row of prompt, completion and images per item, for trl's SFTTrainer.

    Rows are made on demand, so that no decoded images are kept in memory.
    """
    limits = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels}
    requests = [prompter.classify(s, Sampling(), with_reason=bool(reason)) for s, reason in taught]
    answers = [prompter.answer(s.given or "", reason) for s, reason in taught]

    def row(i: int) -> dict[str, Any]:
        request = requests[i]
        content = [{"type": "image"} if e["type"] == "image" else e for e in make_user_content(request)]
        return {
            "prompt": [*make_system_turn(request), {"role": "user", "content": content}],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": answers[i]}]}],
            "images": open_images(request.images, patch_size=patch_size, **limits) or [],
        }

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        made = [row(i) for i in batch["index"]]
        return {key: [r[key] for r in made] for key in ("prompt", "completion", "images")}

    return Dataset.from_dict({"index": list(range(len(taught)))}).with_transform(rows)
