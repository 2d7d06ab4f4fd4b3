"""Sample × pack → Request: the only owner of Jinja, and of every prompt (rule 7).

A pack's template files are editable by people who do not program, so they run in Jinja's sandbox with StrictUndefined:
a misspelt variable is an error at the first item, not a literal `{{ }}` in ten thousand training prompts.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tasks.errors import PackError
from tasks.packs import Pack
from tasks.records import (
    Constraint,
    FreeText,
    ImagePart,
    LabelAnswer,
    Request,
    Sample,
    Sampling,
    TextPart,
    digest_of,
)

# Private-use characters stand for the two values while an answer template is cut around them.
_REASON, _LABEL = "\ue000", "\ue001"

_AGAIN_TEMPERATURE = 0.7
"""A greedy answer asked again would come out the same."""
_AGAIN_SEEDS = 1000
"""Between the seeds of two attempts: n votes of a server that answers one at a time take the seeds in between."""

IMAGE_TOKEN = "<image>"
_PLACEHOLDER = re.compile("<(image|video|audio)>")


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


@dataclass(frozen=True)
class AnswerForm:
    """The answer template cut at its values (see `records.LabelAnswer`)."""

    opening: str
    between: str | None
    closing: str


def user_content(request: Request) -> list[dict[str, str]]:
    """The content list of the request's one user turn, in order.

    Returns elements ``{"type": "text", "text": …}`` and ``{"type": "image", "image": path}``; empty texts are left out.
    """
    content = [{"type": "text", "text": escape_placeholder(request.prefix)}]
    for part in request.parts:
        if isinstance(part, ImagePart):
            content.append({"type": "image", "image": part.image.path})
        else:
            content.append({"type": "text", "text": escape_placeholder(part.text)})
    content.append({"type": "text", "text": escape_placeholder(request.suffix)})
    return [element for element in content if element.get("text") != ""]


def user_text(request: Request) -> str:
    """The same user turn as one string, each image as the token `<image>`.

    A literal `<image>` in the item's own text or in a template would be counted as an image by trainers' readers, so
    it stands in full-width brackets here and in `user_content` alike: what is trained is what is asked.
    """
    pieces = [escape_placeholder(request.prefix)]
    pieces += [IMAGE_TOKEN if isinstance(p, ImagePart) else escape_placeholder(p.text) for p in request.parts]
    pieces.append(escape_placeholder(request.suffix))
    return "".join(pieces)


def escape_placeholder(text: str) -> str:
    """`text` with each literal `<image>` in full-width brackets, so that no reader takes it for a picture.

    LLaMA-Factory counts `<video>` and `<audio>` in the same way, so these too.
    """
    return _PLACEHOLDER.sub(r"＜\1＞", text)


def reseeded(request: Request, attempt: int) -> Request:
    """The same question for the `attempt`-th new answer: another seed, and sampled if it was greedy."""
    temperature = max(request.sampling.temperature, _AGAIN_TEMPERATURE)
    sampling = request.sampling.model_copy(
        update={"seed": request.sampling.seed + _AGAIN_SEEDS * attempt, "temperature": temperature}
    )
    key = digest_of({"again": request.key, "sampling": sampling.model_dump()})
    return request.model_copy(update={"key": key, "sampling": sampling})


class Prompter:
    """Renders a pack's templates into requests for one model.

    `model` is the identity of the model that will be asked (`engines.identity.model_identity`); it is part of every
    request's key. `max_pixels` and `min_pixels` bound each image's area and are part of the key too.
    Raises PackError, naming the file, when a template does not parse or uses an unknown variable.
    """

    def __init__(self, pack: Pack, model: str, *, max_pixels: int, min_pixels: int) -> None:
        self.pack = pack
        self.model = model
        self.max_pixels = max_pixels
        self.min_pixels = min_pixels
        environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(pack.folder),
            undefined=StrictUndefined,
            autoescape=False,  # prompts are not HTML
        )
        filters = cast(dict[str, Callable[..., str]], environment.filters)  # pyright: ignore[reportUnknownMemberType]
        filters["tojson_text"] = _json_text
        filters["json_string"] = _json_string
        self._environment = environment
        self._templates: dict[str, Template] = {}
        self._prefixes: dict[tuple[object, ...], str] = {}

    def rationale(self, sample: Sample, label: str, sampling: Sampling) -> Request:
        """Ask why `sample` has `label`; the answer is free text of at most the pack's `reason_max_chars`."""
        return self._request(sample, "rationale", FreeText(), sampling, label=label)

    def classify(self, sample: Sample, sampling: Sampling, *, with_reason: bool = True) -> Request:
        """Ask for the label of `sample`, reason first unless `with_reason` is False."""
        form = self.answer_form if with_reason else self.bare_answer_form
        constraint = LabelAnswer(
            labels=sample.labels,
            reason_key=self.pack.reason_key if with_reason else None,
            label_key=self.pack.label_key,
            opening=form.opening,
            between=form.between,
            closing=form.closing,
        )
        return self._request(sample, "classify", constraint, sampling, with_reason=with_reason)

    def answer(self, label: str, reason: str = "") -> str:
        """What a student is trained to say for `label`: the pack's answer template."""
        return self._render("answer", None, pack=self.pack, label=label, reason=reason).strip()

    @cached_property
    def answer_form(self) -> AnswerForm:
        """The answer with a reason, cut at reason and label; raises PackError if the label comes first."""
        text = self.answer(_LABEL, _REASON)
        opening, found_reason, rest = text.partition(_REASON)
        between, found_label, closing = rest.partition(_LABEL)
        if not (found_reason and found_label) or _REASON in rest or _LABEL in closing:
            raise PackError(
                f"{self.pack.folder}/answer.jinja: must write `reason | json_string` once and after it "
                "`label | json_string` once (reason before label)"
            )
        return AnswerForm(opening, between, closing)

    @cached_property
    def bare_answer_form(self) -> AnswerForm:
        """The answer without a reason, cut at the label."""
        opening, found, closing = self.answer(_LABEL).partition(_LABEL)
        if not found or _LABEL in closing:
            raise PackError(
                f"{self.pack.folder}/answer.jinja: must write `label | json_string` once when reason is empty"
            )
        return AnswerForm(opening, None, closing)

    def _request(
        self, sample: Sample, purpose: str, constraint: Constraint, sampling: Sampling, **variables: Any
    ) -> Request:
        task = self.pack.task(sample.task)
        glosses = {label: task.labels.get(label, "") for label in sample.labels}
        context = {"task": task, "labels": sample.labels, "glosses": glosses, "pack": self.pack, **variables}
        # The prefix depends on nothing of the item but its label list, so a long pool renders it a handful of times;
        # `label` is kept from it, so that a template that uses it there fails instead of naming the first item's label.
        cache_key = (purpose, sample.task, sample.labels, variables.get("with_reason"))
        prefix = self._prefixes.get(cache_key)
        if prefix is None:
            prefix = self._prefixes[cache_key] = self._render(
                purpose, "prefix", **{name: value for name, value in context.items() if name != "label"}
            )
        suffix = self._render(purpose, "suffix", **context)
        key = digest_of(
            {
                "prefix": prefix,
                "parts": [p.text if isinstance(p, TextPart) else {"image": p.image.sha256} for p in sample.parts],
                "suffix": suffix,
                "constraint": constraint.model_dump(),
                "sampling": sampling.model_dump(),
                "max_pixels": self.max_pixels,
                "min_pixels": self.min_pixels,
                "model": self.model,
            }
        )
        return Request(
            key=key,
            sample_id=sample.id,
            purpose=purpose,
            prefix=prefix,
            parts=sample.parts,
            suffix=suffix,
            constraint=constraint,
            sampling=sampling,
            max_pixels=self.max_pixels,
            min_pixels=self.min_pixels,
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
