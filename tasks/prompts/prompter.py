"""Make requests from samples and a pack. Only this module renders what models read.

People who do not program can edit a pack's templates, so these run in Jinja's sandbox with StrictUndefined. A misspelt
variable is then an error at the first item, and does not leave a gap in ten thousand training prompts.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import PurePath
from typing import Any, cast

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel

from tasks.errors import PackError
from tasks.media import BoxForm, ImagePart, Part, TextPart, VideoPart, digest_part
from tasks.packs.pack import STARTER, Pack
from tasks.packs.pack_file import OcrOption
from tasks.prompts.box_forms import show_box_form
from tasks.prompts.recordings import compute_frame_pixels
from tasks.prompts.turns import BOX_TOKEN, escape_placeholder, make_system_turn, make_user_text
from tasks.records import Constraint, FreeText, LabelAnswer, Message, Request, Sample, Sampling, digest_of
from tasks.storage.json_lines import escape_json

LONG_PROMPT = 2500
"""Participants of the challenge reported worse answers if a prompt's fixed part has more characters than this."""

POINTING_TOKENS = 200
"""More tokens for the boxes after a reason: about 25 each with Qwen2-VL's tokens, and 45 each as JSON in JSON."""
_OF_THE_ITEM = ("label", "description", "complaint", "box", "neighbour", "reason")
_MOST_THOUGHTS = 4000
"""Characters of a model's thoughts that are shown when they are to be shortened: the last ones, with what it found."""

# Private-use characters that replace the two values while an answer template is split at them.
_REASON = "\ue000"
_LABEL = "\ue001"


def _dump_json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def count_fixed_chars(request: Request) -> int:
    """Return the number of characters of the prompt that come from the pack and not from the item."""
    return len(request.system) + len(request.prefix) + len(request.suffix)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a template can read a pack's fields but not call their methods.

    Jinja alone allows such calls, for example of `Path.read_text`, or of pydantic's `parse_raw`, which loads pickles.
    """

    def is_safe_callable(self, obj: Any) -> bool:
        owner = getattr(obj, "__self__", None)
        return super().is_safe_callable(obj) and not isinstance(owner, BaseModel | PurePath | type)


class Prompter:
    """Renders a pack's templates into requests for one model.

    `model` identifies the model that will be asked (`engines.identity.identify_model`). It is part of every request's
    key. So are `max_pixels` and `min_pixels`, which bound each image's area, and `context_length`, which decides how
    prompts are shortened. `texts` maps image digest to the text on the image, for a pack with the option `ocr`.
    `box_form` is how the model writes boxes, for a pack with the option `boxes`. With `thinking_tokens`, the model
    thinks before answers that it begins itself. Methods raise PackError with the file when a template does not parse or
    uses an unknown variable.
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
        box_form: BoxForm = BoxForm.QWEN2,
        thinking_tokens: int = 0,
    ) -> None:
        if pack.ocr is not None and texts is None:
            raise ValueError(f"pack {pack.name} shows the text on images; pass `texts`, read by tasks/items/ocr.py")
        self.texts: Mapping[str, str] = texts or {}
        self.box_form = box_form
        self._context_length = context_length
        self._thinking_tokens = thinking_tokens
        self.pack = pack
        self.model = model
        self.max_pixels = max_pixels
        self.min_pixels = min_pixels
        environment = _Sandbox(
            loader=FileSystemLoader([pack.folder, STARTER / ("zh" if pack.language.startswith("zh") else "en")]),
            undefined=StrictUndefined,
            autoescape=False,  # prompts are not HTML
        )
        filters = cast(dict[str, Callable[..., str]], environment.filters)  # pyright: ignore[reportUnknownMemberType]
        filters["tojson_text"] = _dump_json_text
        filters["json_string"] = escape_json
        self._environment = environment
        self._templates: dict[str, Template] = {}
        self._prefixes: dict[tuple[object, ...], str] = {}

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle only what the prompter was made of: compiled templates cannot be pickled."""
        bounds = {"max_pixels": self.max_pixels, "min_pixels": self.min_pixels, "context_length": self._context_length}
        bounds["thinking_tokens"] = self._thinking_tokens
        return partial(Prompter, self.pack, self.model, texts=self.texts, box_form=self.box_form, **bounds), ()

    def rationale(
        self, sample: Sample, label: str, sampling: Sampling, complaint: str = "", thoughts: str = ""
    ) -> Request:
        """Make a request that asks why `sample` has `label`; the answer is free text.

        `complaint` says what was wrong with an earlier answer; the template's suffix may show it. With `thoughts`, what
        a model thought about the sample, it asks to shorten these to a reason.
        """
        purpose = "shorten" if thoughts else "rationale"
        if thoughts:
            shown = TextPart(text=self._render(purpose, "thoughts", thoughts=thoughts[-_MOST_THOUGHTS:]))
            sample = sample.model_copy(update={"parts": (*sample.parts, shown)})
        variables = {"label": label, "complaint": complaint, "box": self._show_box(sample)}
        return self._request(sample, purpose, FreeText(), self._leave_room(sampling), **variables)

    def describe(self, sample: Sample, sampling: Sampling) -> Request:
        """Make a request that asks what `sample` shows: the first of two steps in packs with `describe_first`."""
        return self._request(sample, "describe", FreeText(), sampling)

    def classify(
        self,
        sample: Sample,
        sampling: Sampling,
        *,
        with_reason: bool = True,
        description: str = "",
        show_box: bool = False,
    ) -> Request:
        """Make a request for the label of `sample`; the answer gives a reason first unless `with_reason` is False.

        `description` is the answer to `describe`; the template's suffix may show it. `show_box` asks to point at the
        evidence, for packs with the option `boxes`. Trained students are not asked: their training has taught them.
        """
        self.pack.require_labels("asking for a label")
        pieces = self._answer_pieces if with_reason else self._bare_answer_pieces
        constraint = self._label_answer(sample.labels, pieces)
        box = self._show_box(sample) if show_box and with_reason else ""
        variables = {"with_reason": with_reason, "description": description, "box": box}
        sampling = self._leave_room(sampling) if with_reason else sampling
        return self._request(sample, "classify", constraint, sampling, **variables)

    def conclude(self, sample: Sample, reason: str, sampling: Sampling) -> Request:
        """Make a request for the label of `sample` in which the answer already begins with `reason`.

        The answer has the pack's own format, as for a student, so labels can be scored after the reason
        (`label_probabilities`).
        """
        opening, between, closing = self._answer_pieces
        constraint = self._label_answer(sample.labels, (opening + escape_json(reason) + between, closing))
        request = self._request(sample, "classify", constraint, sampling, with_reason=True, description="", box="")
        return request.model_copy(update={"purpose": "support"})

    def judge(
        self, sample: Sample, label: str, neighbour: str, reason: str, answers: tuple[str, ...], sampling: Sampling
    ) -> Request:
        """Make a request that asks whether `reason` explains why `sample` has `label` and not `neighbour`.

        The answer has the pack's own format, with one of `answers` in the place of the label.
        """
        constraint = self._label_answer(answers, self._answer_pieces)
        variables = {"label": label, "neighbour": neighbour, "reason": reason}
        return self._request(sample, "judge", constraint, sampling, **variables)

    def write(self, sample: Sample, sampling: Sampling) -> Request:
        """Make a request for the text of `sample`, such as a caption, in a free-text task."""
        return self._request(sample, "write", FreeText(), sampling)

    def answer(self, label: str, reason: str = "", boxes: int = 0) -> str:
        """Return the answer that a student is trained to give for `label`, or for a free text.

        The reason ends with so many `<bbox>`, which stand for boxes until their reader is known.
        """
        if boxes:
            reason = escape_placeholder(reason) + BOX_TOKEN * boxes
        return self._render("answer", None, pack=self.pack, label=label, reason=reason).strip()

    def training_turns(self, sample: Sample, label: str, reason: str = "", boxes: int = 0) -> tuple[Message, ...]:
        """Return the conversation that a student is trained on: the question about `sample`, and the answer.

        It has the pack's system turn, if there is one, a user turn and the assistant's turn. With a `reason` or boxes,
        the question asks for reason and label; without them, it asks for the label alone. For free text, `label` is the
        text, and there is no reason.
        """
        if self.pack.task(sample.task).free_text:
            request = self.write(sample, Sampling())
        else:
            request = self.classify(sample, Sampling(), with_reason=bool(reason or boxes))
        return (
            *(Message(role="system", content=turn["content"]) for turn in make_system_turn(request)),
            Message(role="user", content=make_user_text(request)),
            Message(role="assistant", content=self.answer(label, reason, boxes)),
        )

    def _show_box(self, sample: Sample) -> str:
        return show_box_form(self.box_form, len(sample.images)) if self.pack.boxes else ""

    def _leave_room(self, sampling: Sampling) -> Sampling:
        """Return `sampling` with room for boxes after the reason, if the pack asks for them."""
        longer = {"max_tokens": sampling.max_tokens + POINTING_TOKENS}
        return sampling.model_copy(update=longer) if self.pack.boxes else sampling

    @cached_property
    def _answer_pieces(self) -> tuple[str, ...]:
        """The text of the answer template before, between and after reason and label."""
        advice = "write `reason | json_string` once and after it `label | json_string` once (reason before label)"
        return self._cut_answer(_REASON, advice)

    @cached_property
    def _bare_answer_pieces(self) -> tuple[str, ...]:
        """The text of the answer template before and after the label, without a reason."""
        return self._cut_answer("", "write `label | json_string` once when reason is empty")

    def _cut_answer(self, reason: str, advice: str) -> tuple[str, ...]:
        """Split the answer at its values; raises PackError unless each occurs once, the label last."""
        text = self.answer(_LABEL, reason)
        if "".join(re.findall(f"[{_REASON}{_LABEL}]", text)) != reason + _LABEL:
            raise PackError(f"{self.pack.folder}/answer.jinja: must {advice}")
        return tuple(re.split(f"[{_REASON}{_LABEL}]", text))

    def _label_answer(self, labels: tuple[str, ...], pieces: tuple[str, ...]) -> LabelAnswer:
        opening, *between, closing = pieces
        return LabelAnswer(
            labels=labels,
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
        # Of the item, the prefix depends only on the label list, so a long pool renders it a few times. It does not
        # get the item's other variables: a template that uses one there fails instead of showing the first item's.
        cache_key = (purpose, sample.task, sample.labels, variables.get("with_reason"))
        prefix = self._prefixes.get(cache_key)
        if prefix is None:
            prefix = self._prefixes[cache_key] = self._render(
                purpose, "prefix", **{name: value for name, value in context.items() if name not in _OF_THE_ITEM}
            )
        suffix = self._render(purpose, "suffix", **context)
        parts = _insert_texts(sample.parts, self.texts, self.pack.ocr)
        videos = [part.video for part in parts if isinstance(part, VideoPart)]
        begun = isinstance(constraint, LabelAnswer) and constraint.between is None  # nothing to think about any more
        thinking = 0 if begun else self._thinking_tokens
        key = digest_of(
            {
                "prefix": prefix,
                "parts": [_identify(part) for part in parts],
                "suffix": suffix,
                "constraint": constraint.model_dump(),
                "sampling": sampling.model_dump(),
                "max_pixels": self.max_pixels,
                "min_pixels": self.min_pixels,
                "model": self.model,
                "context_length": self._context_length,
                # only if there is one: otherwise the keys of all existing answers would change
                **({"system": self.pack.system} if self.pack.system else {}),
                **({"boxes": True} if self.pack.boxes else {}),
                **({"thinking": thinking} if thinking else {}),
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
            boxes=self.box_form if self.pack.boxes else None,
            max_pixels=self.max_pixels,
            min_pixels=self.min_pixels,
            frame_pixels=compute_frame_pixels(videos, min_pixels=self.min_pixels, max_pixels=self.max_pixels),
            keep_from_turn=task.find_latest_user_turn(
                (part.turn, part.text if isinstance(part, TextPart) else "") for part in sample.parts
            ),
            thinking=thinking,
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
                raise PackError(f"{self.pack.folder}/{file}: has no `{{% block {block} %}}`; add it")
            return "".join(template.blocks[block](template.new_context(context)))
        except (
            TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
        ) as error:  # the last three: expressions
            where = getattr(error, "lineno", None)
            line = f", line {where}" if where else ""
            raise PackError(f"{self.pack.folder}/{file}{line}: {error}") from error


def _identify(part: Part) -> object:
    """Return what a request's key has of `part`: its text, or the digests of what the model sees of it."""
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, ImagePart):
        return {"image": part.image.sha256}
    return {"frames": [frame.sha256 for frame in part.video.frames], "times": part.video.times}


def _insert_texts(parts: tuple[Part, ...], texts: Mapping[str, str], option: OcrOption | None) -> tuple[Part, ...]:
    """Return the parts with the text on each image or recording after it, between the delimiters of the pack."""
    if option is None:
        return parts
    shown: list[Part] = []
    for part in parts:
        shown.append(part)
        if not isinstance(part, TextPart) and (text := texts.get(digest_part(part), "").strip()):
            # the text on an image must not contain the closing delimiter
            text = text.replace(option.before, " ").replace(option.after, " ")[: option.max_chars]
            shown.append(TextPart(text=option.before + text + option.after, turn=part.turn))
    return tuple(shown)
