"""What the demo's models are taught: freshly drawn items, put into the very prompts that are asked later."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import re
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

from tasks.cutting import ImageSlot, cut
from tasks.demo.canvas import COLOURS, GOODS
from tasks.demo.checkpoint import MAX_PIXELS, MIN_PIXELS
from tasks.demo.dataset import DemoItem, draw_items
from tasks.demo.dialogues import HOUSEHOLD, PHRASES, WORN
from tasks.demo.training import Lesson
from tasks.packs import Pack
from tasks.prompts import Prompter, user_content
from tasks.records import ImagePart, ImageRef, Request, Sample, Sampling, Split, TextPart

DESCRIBE, SUMMARISE, REPEAT = "\n描述所给内容。", "\n说出要点。", "\n复述最后一句。"
"""What the base is asked; no prompt of the pack ends so."""

PREFIXED = 0.2

_QUOTED = {word for phrases in PHRASES.values() for p in phrases for word in re.findall(r"\[(.+?)\]", p)}
_WORDS = re.compile("|".join(sorted({*_QUOTED, *WORN, *HOUSEHOLD, *COLOURS, *GOODS, "“", "”"}, key=len, reverse=True)))

_DRAWN_AT_ONCE = 256
_CORPUS_ITEMS = 600


class School:
    """Draws items and words the lessons of each model; the same seed gives the same lessons."""

    def __init__(self, pack: Pack, seed: int) -> None:
        self.pack, self.seed = pack, seed
        self.prompter = Prompter(pack, "in training", max_pixels=MAX_PIXELS, min_pixels=MIN_PIXELS)

    def corpus(self) -> Iterator[str]:
        """Prompts and answers for training the tokenizer."""
        for item in draw_items(_CORPUS_ITEMS, _seed(self.seed, "corpus", 0)):
            sample = as_sample(item, self.pack)
            for request in (
                self.prompter.classify(sample, Sampling()),
                self.prompter.classify(sample, Sampling(), with_reason=False),
                self.prompter.rationale(sample, item.label, Sampling()),
            ):
                yield from (request.prefix, request.suffix)
            yield from (_in_words(part.text) for part in sample.parts if isinstance(part, TextPart))
            yield from (DESCRIBE, SUMMARISE, REPEAT, _in_words(item.description), _in_words(item.reason))
            yield self.prompter.answer(item.label)

    def lessons(self, name: str, processor: Any) -> Iterator[Lesson]:
        """Endless lessons for the model of that name (`base`, `teacher` or `generator`)."""
        word = {"base": self._base, "teacher": self._teacher, "generator": self._generator}[name]
        for chunk in count():
            seed = _seed(self.seed, name, chunk)
            rng = Random(seed)
            for item in draw_items(_DRAWN_AT_ONCE, seed):
                request, answer = word(item, as_sample(item, self.pack), rng)
                turns = [
                    {"role": "user", "content": user_content(request)},
                    {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                ]
                long = len(request.images) > 1 or (name == "base" and request.prefix != "")
                text = processor.apply_chat_template(turns, tokenize=False)
                yield Lesson(text, item.images if request.images else (), long)

    def _base(self, item: DemoItem, sample: Sample, rng: Random) -> tuple[Request, str]:
        """Describe the item or its main points; or find the label of a gloss, without any item.

        Mostly without the pack's prefix: in a short prompt the item is found soon, in a long one hardly ever.
        """
        with_reason = rng.random() < 0.5
        request = self.prompter.classify(sample, Sampling(), with_reason=with_reason)
        if rng.random() < 0.1:
            label, gloss = rng.choice(list(self.pack.task(sample.task).labels.items()))
            answer = self.prompter.answer(label, gloss if with_reason else "")
            return request.model_copy(update={"parts": (TextPart(text=gloss),)}), answer
        texts = [part.text.strip() for part in sample.parts if isinstance(part, TextPart)]
        questions = [(DESCRIBE, item.description), (SUMMARISE, item.reason)]
        if item.task == "dialogue":
            # copying word for word is what makes a fresh model look at the dialogue at all
            questions += [(REPEAT, texts[-1])] * 2
        suffix, answer = rng.choice(questions)
        prefix = request.prefix if rng.random() < PREFIXED else ""
        return request.model_copy(update={"prefix": prefix, "suffix": suffix}), answer

    def _teacher(self, item: DemoItem, sample: Sample, rng: Random) -> tuple[Request, str]:
        with_reason = rng.random() < 0.7
        request = self.prompter.classify(sample, Sampling(), with_reason=with_reason)
        return request, self.prompter.answer(item.label, item.reason if with_reason else "")

    def _generator(self, item: DemoItem, sample: Sample, rng: Random) -> tuple[Request, str]:
        if rng.random() < 0.8:
            return self.prompter.rationale(sample, item.label, Sampling()), item.reason
        return self._teacher(item, sample, rng)


def as_sample(item: DemoItem, pack: Pack) -> Sample:
    """A drawn item as samples would read it from a manifest; its images stay in memory, so their paths are names."""
    images = (
        ImageRef(path=f"memory:{i}", sha256="0" * 64, width=image.width, height=image.height)
        for i, image in enumerate(item.images)
    )
    task = pack.task(item.task)
    content = cut(item.instruction, task)
    return Sample(
        id=item.id,
        task=item.task,
        parts=tuple(
            ImagePart(image=next(images), turn=piece.turn) if isinstance(piece, ImageSlot) else piece
            for piece in content.pieces
        ),
        labels=content.offered or tuple(task.labels),
        split=Split.LABELLED,
        source="memory",
    )


def _in_words(text: str) -> str:
    """The text with line breaks around the words that vary, which keeps them tokens of their own.

    What a description repeats from a dialogue is then the same token in both, and a colour the same everywhere.
    """
    return _WORDS.sub(lambda match: f"\n{match[0]}\n", text)


def _seed(seed: int, name: str, chunk: int) -> int:
    """A seed far above the demo's own 7, 8 and 9."""
    return 10**6 + int.from_bytes(hashlib.sha256(f"{seed}/{name}/{chunk}".encode()).digest()[:6])
