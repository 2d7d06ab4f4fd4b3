"""Render a conversation as text by the chat template of a checkpoint, as transformers does it, without its torch."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ChatTemplate:
    """A compiled chat template. Any thread may use it."""

    def __init__(self, text: str, tokens: Mapping[str, str]) -> None:
        """Compile `text`, which may use `tokens`: names such as `eos_token` and their tokens."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        known = {**tokens, "raise_exception": _raise, "strftime_now": _format_now}
        self._template = environment.from_string(text, globals=known)

    def render(self, turns: Sequence[Mapping[str, Any]], generate: bool, continue_last: bool) -> str:
        """Return the conversation as text.

        With `generate`, it ends with the beginning of an answer; with `continue_last`, with the last turn's own text.
        """
        text = self._template.render(messages=turns, add_generation_prompt=generate, tools=None, documents=None)
        if continue_last:
            last = str(turns[-1]["content"])
            text = text[: text.rindex(last) + len(last)]
        return text


class _Generation(Extension):
    """The tag with which training templates mark what the model writes; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _format_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise(message: str) -> None:
    raise TemplateError(message)
