"""What the demo's models are taught: freshly drawn items, put into the very prompts that are asked later."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import re
from collections.abc import Iterator
from enum import Enum
from itertools import count, product
from random import Random
from typing import Any

from PIL import Image

from tasks.demo import dialogues
from tasks.demo.canvas import COLOURS, GOODS
from tasks.demo.checkpoint import MAX_PIXELS, MIN_PIXELS
from tasks.demo.dataset import IMAGE_LABELS, DemoItem, draw_items
from tasks.demo.dialogues import HOUSEHOLD, PHRASES, WORN
from tasks.demo.screens import KINDS
from tasks.demo.training import Lesson
from tasks.items.cutting import ImageSlot, cut_instruction
from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import ImagePart, ImageRef, Request, Sample, Sampling, Split, TextPart

CAPTION, POINT = "\n一句话。", "\n一处要点。"
"""What the base is asked beside the pack's own question."""

UNPREFIXED = 0.3

CAPTIONS = {name: kind.caption for name, kind in KINDS.items()} | dialogues.CAPTIONS
"""What the base says of an item in a phrase: it sees what is there, as any pretrained model does, but it was never told
a label's name, nor that a phrase and a label go together."""

_QUOTED = {word for phrases in PHRASES.values() for p in phrases for word in re.findall(r"\[(.+?)\]", p)}
_WORDS = re.compile("|".join(sorted({*_QUOTED, *WORN, *HOUSEHOLD, *COLOURS, *GOODS, "“", "”"}, key=len, reverse=True)))

_DRAWN_AT_ONCE = 256


class Stage(Enum):
    """What a model is taught at a time: single phrases or bare labels first, since they are learnt far sooner."""

    SHORT = 0
    """Without the pack's prefix."""
    BARE = 1
    WHOLE = 2
    """With reasons."""


_UNTIL = {"base": (12, 999), "teacher": (0, 9), "generator": (0, 0)}
"""The chunks at which the stages SHORT and BARE end."""

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
            yield from (CAPTION, POINT, CAPTIONS[item.label], self.prompter.answer(CAPTIONS[item.label]))
            yield from (_in_words(reason_of(item)), self.prompter.answer(item.label))

    def fingerprint(self) -> str:
        """Digest of a sample of what is taught, words and pixels: it changes with items, prompts and answers."""
        total = hashlib.sha256()
        for item in draw_items(60, _seed(self.seed, "fingerprint", 0)):
            sample = as_sample(item, self.pack)
            for word, stage in product((self._base, self._teacher, self._generator), Stage):
                request, answer = word(item, sample, Random(item.id), stage)
                total.update(repr((make_system_turn(request), make_user_content(request), answer)).encode())
            for image in item.images:
                total.update(image.tobytes())
        return total.hexdigest()

    def pictures(self) -> Iterator[tuple[Image.Image, str]]:
        """Endless screens with their captions."""
        for chunk in count():
            for item in draw_items(_DRAWN_AT_ONCE, _seed(self.seed, "pictures", chunk), image_share=1.0):
                yield item.images[0], CAPTIONS[item.label]

    def screen_captions(self) -> list[str]:
        """The captions that `pictures` uses."""
        return [CAPTIONS[label] for label in IMAGE_LABELS]

    def lessons(self, name: str, processor: Any) -> Iterator[Lesson]:
        """Endless lessons for the model of that name (`base`, `teacher` or `generator`)."""
        word = {"base": self._base, "teacher": self._teacher, "generator": self._generator}[name]
        for chunk in count():
            seed = _seed(self.seed, name, chunk)
            rng = Random(seed)
            short, bare = _UNTIL[name]
            stage = Stage.SHORT if chunk < short else Stage.BARE if chunk < bare else Stage.WHOLE
            for item in draw_items(_DRAWN_AT_ONCE, seed):
                request, answer = word(item, as_sample(item, self.pack), rng, stage)
                turns = [
                    *make_system_turn(request),
                    {"role": "user", "content": make_user_content(request)},
                    {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                ]
                long = len(request.images) > 1 or (name == "base" and request.prefix != "")
                text = processor.apply_chat_template(turns, tokenize=False)
                yield Lesson(text, item.images if request.images else (), long)

    def _base(self, item: DemoItem, sample: Sample, rng: Random, stage: Stage) -> tuple[Request, str]:
        """Describe the item in a phrase, plain or in the form of an answer, or name one point of it; never a label.

        First without the pack's prefix: in a short prompt the item is found soon, in a long one hardly ever.
        """
        request = self.prompter.classify(sample, Sampling(), with_reason=False)
        suffix, answer = CAPTION, CAPTIONS[item.label]
        chance = rng.random()
        if stage is not Stage.SHORT and chance < 0.6:
            suffix, answer = request.suffix, self.prompter.answer(answer)
        elif stage is not Stage.SHORT and chance < 0.75:
            suffix, answer = POINT, main_point(item)
        prefix = "" if stage is Stage.SHORT or rng.random() < UNPREFIXED else request.prefix
        return request.model_copy(update={"prefix": prefix, "suffix": suffix}), answer

    def _teacher(self, item: DemoItem, sample: Sample, rng: Random, stage: Stage) -> tuple[Request, str]:
        with_reason = rng.random() < 0.7
        reason = reason_of(item) if stage is Stage.WHOLE else CAPTIONS[item.label]
        request = self.prompter.classify(sample, Sampling(), with_reason=with_reason)
        return request, self.prompter.answer(item.label, reason if with_reason else "")

    def _generator(self, item: DemoItem, sample: Sample, rng: Random, stage: Stage) -> tuple[Request, str]:
        if rng.random() < 0.8:
            return self.prompter.rationale(sample, item.label, Sampling()), reason_of(item)
        return self._teacher(item, sample, rng, stage)


def as_sample(item: DemoItem, pack: Pack) -> Sample:
    """A drawn item as samples would read it from a manifest; its images stay in memory, so their paths are names."""
    images = (
        ImageRef(path=f"memory:{i}", sha256="0" * 64, width=image.width, height=image.height)
        for i, image in enumerate(item.images)
    )
    task = pack.task(item.task)
    content = cut_instruction(item.instruction, task)
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


def reason_of(item: DemoItem) -> str:
    """The caption, then two things that are drawn or said in this very item.

    The caption first: a reason that begins with a quotation sends a model of this size astray, label included.
    """
    return "，".join([CAPTIONS[item.label], *item.reason.split("，")[:2]])


def main_point(item: DemoItem) -> str:
    """One thing that is seen or said: a screen's first mark, a dialogue's last quoted words."""
    quoted = re.findall("“(.+?)”", item.reason)
    return quoted[-1] if item.task == "dialogue" and quoted else item.reason.split("，")[0]


def _in_words(text: str) -> str:
    """The text with line breaks around the words that vary, which keeps them tokens of their own.

    What a description repeats from a dialogue is then the same token in both, and a colour the same everywhere.
    """
    return _WORDS.sub(lambda match: f"\n{match[0]}\n", text)


def _seed(seed: int, name: str, chunk: int) -> int:
    """A seed far above the demo's own 7, 8 and 9."""
    return 10**6 + int.from_bytes(hashlib.sha256(f"{seed}/{name}/{chunk}".encode()).digest()[:6])
