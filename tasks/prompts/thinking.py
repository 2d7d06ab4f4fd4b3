"""Separate the thinking from an answer, so that a draft in it is never read as the answer.

Servers with a reasoning parser return the thinking separately. Without one, or with the wrong one, it is part of the
text. Models mark it differently, and some chat templates already contain the opening marker, so that the text has only
the closing one.
"""

import re

from tasks.records import Generation
from tasks.storage.json_lines import escape_json

ADVICE = (
    "only thinking, no answer: raise `thinking_tokens` (`max_tokens` without it), or switch thinking off, for many "
    "models with `extra_body: {chat_template_kwargs: {enable_thinking: false}}` (engine: server)"
)
"""What to do if a model spends all of its tokens on thinking."""

_TAG = r"(?i:(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning|analysis|scratchpad|reflection))"
_MARKER = re.compile(
    rf"(?P<opens><{_TAG}>"
    r"|<\|begin_of_thought\|>|◁think▷|\[THINK\]"  # OpenThinker; Kimi; Magistral
    r"|<\|channel>thought|\Athought\n"  # Gemma 4, with and without special tokens
    r"|<\|channel\|>(?:analysis|commentary)\b|\Aanalysis(?=\w)"  # gpt-oss, with and without special tokens
    r"|\A\s*Here(?:['’]s| is) my thought process:)"  # Granite 3.2
    rf"|(?P<closes></{_TAG}>"
    r"|<\|end_of_thought\|>|◁/think▷|\[/THINK\]"
    r"|<channel\|>"
    r"|<\|channel\|>final(?:<\|message\|>)?|assistantfinal"
    r"|Here(?:['’]s| is) my response:)"
)
_WRAPPER = re.compile(
    r"</?(?:answer|response|output)>"
    r"|<\|(?:begin|end)_of_(?:solution|box|answer)\|>"
    r"|<\|(?:start|message|return|end|im_end|endoftext)\|>"
)
"""What such models write around the final answer."""


def cut_thinking(text: str) -> str:
    """Return the text without its thinking, or unchanged if it has none."""
    return split_thinking(text)[1]


def split_thinking(text: str) -> tuple[str, str]:
    """Return the thinking in the text, as far as it has ended, and the text without any, unchanged if it has none.

    Thinking without an opening marker begins with the text; thinking without a closing marker ends with it.
    """
    kept: list[str] = []
    thoughts: list[str] = []
    start = 0
    inside = found = False
    for marker in _MARKER.finditer(text):
        if text[marker.start() - 1 : marker.start()] == '"' == text[marker.end() : marker.end() + 1]:
            continue  # a label may be called like a marker
        found = True
        if marker["closes"]:
            if not inside:
                kept.clear()
            thoughts.append(text[start : marker.start()])
        elif inside:
            continue
        else:
            kept.append(text[start : marker.start()])
        inside = not marker["closes"]
        start = marker.end()
    if not found:
        return "", text
    if not inside:
        kept.append(text[start:])
    return "\n".join(thoughts).strip(), _WRAPPER.sub("", "\n".join(kept)).strip()


def read_thoughts(generation: Generation) -> list[str]:
    """Return what the model thought before each of the texts; empty where it did not think or never ended thinking."""
    separate = generation.thoughts or ("",) * len(generation.texts)
    return [own or split_thinking(text)[0] for own, text in zip(separate, generation.texts, strict=True)]


def choose_thoughts(generation: Generation, label: str) -> str:
    """Return what the model thought before the first text that ends with `label`; empty if there is no such thought.

    The label is the whole value, not the end of a longer label.
    """
    ending = re.compile(rf"(?<!\w){re.escape(escape_json(label))}[\s\"'}}.。]*$")
    pairs = zip(read_thoughts(generation), generation.texts, strict=True)
    return next((thoughts for thoughts, text in pairs if thoughts and ending.search(cut_thinking(text))), "")
