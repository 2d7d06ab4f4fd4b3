"""Sample × pack → Request: the only place that renders what models read.

A pack's template files are editable by people who do not program, so they run in Jinja's sandbox with StrictUndefined:
a misspelt variable is an error at the first item, not a literal `{{ }}` in ten thousand training prompts.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import PurePath
from typing import Any, cast

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel

from tasks.errors import PackError
from tasks.packs.pack import Pack, TaskPack
from tasks.packs.pack_file import OcrOption
from tasks.prompts.turns import system_turn, user_text
from tasks.records import (
    Constraint,
    FreeText,
    ImagePart,
    LabelAnswer,
    Message,
    Part,
    Request,
    Sample,
    Sampling,
    TextPart,
    digest_of,
)
from tasks.storage.json_lines import escape_json

LONG_PROMPT = 2500
"""Fixed prompts beyond about so many characters made answers worse (reported by people who competed)."""

_OF_THE_ITEM = ("label", "description", "complaint")

_AGAIN_TEMPERATURE = 0.7
"""A greedy answer asked again would come out the same."""
_AGAIN_SEEDS = 1000
"""Between the seeds of two attempts: n votes of a server that answers one at a time take the seeds in between."""

# Private-use characters stand for the two values while an answer template is cut around them.
_REASON = "\ue000"
_LABEL = "\ue001"


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def reseeded(request: Request, attempt: int) -> Request:
    """The same question for the `attempt`-th new answer: another seed, and sampled if it was greedy."""
    temperature = max(request.sampling.temperature, _AGAIN_TEMPERATURE)
    sampling = request.sampling.model_copy(
        update={"seed": request.sampling.seed + _AGAIN_SEEDS * attempt, "temperature": temperature}
    )
    key = digest_of({"again": request.key, "sampling": sampling.model_dump()})
    return request.model_copy(update={"key": key, "sampling": sampling})


def fixed_chars(request: Request) -> int:
    """Characters of the prompt that are the pack's and not the item's."""
    return len(request.system) + len(request.prefix) + len(request.suffix)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a template reads a pack's fields and calls none of their methods.

    Jinja alone lets it call them: a path's `read_text`, and pydantic's `parse_raw`, which loads pickles.
    """

    def is_safe_callable(self, obj: Any) -> bool:
        owner = getattr(obj, "__self__", None)
        return super().is_safe_callable(obj) and not isinstance(owner, BaseModel | PurePath | type)


class Prompter:
    """Renders a pack's templates into requests for one model.

    `model` is the identity of the model that will be asked (`engines.identity.model_identity`); it is part of every
    request's key. `max_pixels` and `min_pixels` bound each image's area and are part of the key too, and so is
    `context_length`, if one is set: it decides what is shortened. `texts` is what was read off the images, by digest,
    for a pack with the option `ocr`.
    Raises PackError, naming the file, when a template does not parse or uses an unknown variable.
    """

    def __init__(
        self,
        pack: Pack,
        model: str,
        *,
        max_pixels: int,
        min_pixels: int,
        context_length: int | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        if pack.ocr is not None and texts is None:
            raise ValueError(f"pack {pack.name} shows the text on images: read it first (tasks/items/ocr.py)")
        self.texts: Mapping[str, str] = texts or {}
        self._context_length = context_length
        self.pack = pack
        self.model = model
        self.max_pixels = max_pixels
        self.min_pixels = min_pixels
        environment = _Sandbox(
            loader=FileSystemLoader(pack.folder),
            undefined=StrictUndefined,
            autoescape=False,  # prompts are not HTML
        )
        filters = cast(dict[str, Callable[..., str]], environment.filters)  # pyright: ignore[reportUnknownMemberType]
        filters["tojson_text"] = _json_text
        filters["json_string"] = escape_json
        self._environment = environment
        self._templates: dict[str, Template] = {}
        self._prefixes: dict[tuple[object, ...], str] = {}

    def rationale(self, sample: Sample, label: str, sampling: Sampling, complaint: str = "") -> Request:
        """Ask why `sample` has `label`; the answer is free text of at most the pack's `reason_max_chars`.

        `complaint` says what was wrong with an answer before; the template's suffix may show it.
        """
        return self._request(sample, "rationale", FreeText(), sampling, label=label, complaint=complaint)

    def describe(self, sample: Sample, sampling: Sampling) -> Request:
        """Ask what `sample` shows, without a label in mind: the first of two steps (packs with `describe_first`)."""
        return self._request(sample, "describe", FreeText(), sampling)

    def classify(
        self, sample: Sample, sampling: Sampling, *, with_reason: bool = True, description: str = ""
    ) -> Request:
        """Ask for the label of `sample`, reason first unless `with_reason` is False.

        `description` is the answer to `describe`; the template's suffix may show it.
        """
        self.pack.require_labels("asking for a label")
        constraint = self._label_answer(sample, self._answer_pieces if with_reason else self._bare_answer_pieces)
        variables = {"with_reason": with_reason, "description": description}
        return self._request(sample, "classify", constraint, sampling, **variables)

    def conclude(self, sample: Sample, reason: str, sampling: Sampling) -> Request:
        """Ask for the label of `sample` after an answer that has begun with `reason`, which no prompt mentions.

        The label is scored behind the reason as the pack writes it (`label_probabilities`), as a student will be asked.
        """
        opening, between, closing = self._answer_pieces
        constraint = self._label_answer(sample, (opening + escape_json(reason) + between, closing))
        request = self._request(sample, "classify", constraint, sampling, with_reason=True, description="")
        return request.model_copy(update={"purpose": "support"})

    def write(self, sample: Sample, sampling: Sampling) -> Request:
        """Ask for the text of `sample` (a caption, say): what `classify` is to a task with labels."""
        return self._request(sample, "write", FreeText(), sampling)

    def answer(self, label: str, reason: str = "") -> str:
        """What a student is trained to say for `label` (of free text: that text): the pack's answer template."""
        return self._render("answer", None, pack=self.pack, label=label, reason=reason).strip()

    def training_turns(self, sample: Sample, label: str, reason: str = "") -> tuple[Message, ...]:
        """The conversation a student is trained on: what it is asked about `sample`, and the answer it should give.

        The pack's system turn, if it has one, a user turn, and the assistant's. With a `reason` the question asks for
        one, without it for the bare label; of free text `label` is the text, and there is no reason.
        """
        if self.pack.task(sample.task).free_text:
            request = self.write(sample, Sampling())
        else:
            request = self.classify(sample, Sampling(), with_reason=bool(reason))
        return (
            *(Message(role="system", content=turn["content"]) for turn in system_turn(request)),
            Message(role="user", content=user_text(request)),
            Message(role="assistant", content=self.answer(label, reason)),
        )

    @cached_property
    def _answer_pieces(self) -> tuple[str, ...]:
        """What the answer template writes before, between and after reason and label."""
        advice = "write `reason | json_string` once and after it `label | json_string` once (reason before label)"
        return self._cut_answer(_REASON, advice)

    @cached_property
    def _bare_answer_pieces(self) -> tuple[str, ...]:
        """What the answer template writes before and after the label of an answer without a reason."""
        return self._cut_answer("", "write `label | json_string` once when reason is empty")

    def _cut_answer(self, reason: str, advice: str) -> tuple[str, ...]:
        """Cut the answer at its values; raises PackError unless each of them is there once, the label last."""
        text = self.answer(_LABEL, reason)
        if "".join(re.findall(f"[{_REASON}{_LABEL}]", text)) != reason + _LABEL:
            raise PackError(f"{self.pack.folder}/answer.jinja: must {advice}")
        return tuple(re.split(f"[{_REASON}{_LABEL}]", text))

    def _label_answer(self, sample: Sample, pieces: tuple[str, ...]) -> LabelAnswer:
        opening, *between, closing = pieces
        return LabelAnswer(
            labels=sample.labels,
            reason_key=self.pack.reason_key if between else None,
            label_key=self.pack.label_key,
            opening=opening,
            between=between[0] if between else None,
            closing=closing,
        )

    def _request(
        self, sample: Sample, purpose: str, constraint: Constraint, sampling: Sampling, **variables: Any
    ) -> Request:
        task = self.pack.task(sample.task)
        glosses = {label: task.labels.get(label, "") for label in sample.labels}
        context = {"task": task, "labels": sample.labels, "glosses": glosses, "pack": self.pack, **variables}
        # The prefix depends on nothing of the item but its label list, so a long pool renders it a handful of times;
        # the item's own variables are kept from it: a template that uses one there fails instead of naming the first
        # item's.
        cache_key = (purpose, sample.task, sample.labels, variables.get("with_reason"))
        prefix = self._prefixes.get(cache_key)
        if prefix is None:
            prefix = self._prefixes[cache_key] = self._render(
                purpose, "prefix", **{name: value for name, value in context.items() if name not in _OF_THE_ITEM}
            )
        suffix = self._render(purpose, "suffix", **context)
        parts = _with_texts(sample.parts, self.texts, self.pack.ocr)
        key = digest_of(
            {
                "prefix": prefix,
                "parts": [p.text if isinstance(p, TextPart) else {"image": p.image.sha256} for p in parts],
                "suffix": suffix,
                "constraint": constraint.model_dump(),
                "sampling": sampling.model_dump(),
                "max_pixels": self.max_pixels,
                "min_pixels": self.min_pixels,
                "model": self.model,
                "context_length": self._context_length,
                # only where there is one: a key that every question has would ask them all again
                **({"system": self.pack.system} if self.pack.system else {}),
            }
        )
        return Request(
            key=key,
            sample_id=sample.id,
            purpose=purpose,
            prefix=prefix,
            parts=parts,
            suffix=suffix,
            constraint=constraint,
            sampling=sampling,
            system=self.pack.system,
            max_pixels=self.max_pixels,
            min_pixels=self.min_pixels,
            keep_from_turn=_latest_user_turn(sample, task),
        )

    def _render(self, name: str, block: str | None, **context: Any) -> str:
        file = f"{name}.jinja"
        try:
            template = self._templates.get(file)
            if template is None:
                template = self._templates[file] = self._environment.get_template(file)
            if block is None:
                return template.render(**context)
            if block not in template.blocks:
                raise PackError(f"{self.pack.folder}/{file}: has no `{{% block {block} %}}`")
            return "".join(template.blocks[block](template.new_context(context)))
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:  # the last three: its own expressions
            where = getattr(error, "lineno", None)
            line = f", line {where}" if where else ""
            raise PackError(f"{self.pack.folder}/{file}{line}: {error}") from error


def _with_texts(parts: tuple[Part, ...], texts: Mapping[str, str], option: OcrOption | None) -> tuple[Part, ...]:
    """The parts with the text on each image behind it (`texts` by image digest), delimited as the pack says."""
    if option is None:
        return parts
    shown: list[Part] = []
    for part in parts:
        shown.append(part)
        if isinstance(part, ImagePart) and (text := texts.get(part.image.sha256, "").strip()):
            # what stands on an image must not end its own brackets
            text = text.replace(option.before, " ").replace(option.after, " ")[: option.max_chars]
            shown.append(TextPart(text=option.before + text + option.after, turn=part.turn))
    return tuple(shown)


def _latest_user_turn(sample: Sample, task: TaskPack) -> int:
    """The number of the user's latest turn, 0 where the item has no turns."""
    turns = {part.turn for part in sample.parts}
    if task.user_turn is None:
        return max(turns, default=0)
    spoken = [p.turn for p in sample.parts if isinstance(p, TextPart) and task.user_turn.search(p.text)]
    return max(spoken, default=max(turns, default=0))
