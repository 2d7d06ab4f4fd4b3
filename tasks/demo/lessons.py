"""Make the training data of the demo's models: newly generated items, in the prompts that a run uses later."""

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
from tasks.items.cutting import cut_instruction
from tasks.media import ImageRef, TextPart
from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import Request, Sample, Sampling, Split

CAPTION, POINT = "\n一句话。", "\n一处要点。"
"""Questions to the base model, in addition to the pack's own."""

UNPREFIXED = 0.3
"""Share of the base model's lessons that omit the pack's prefix, after the stage SHORT, in which all omit it."""

CAPTIONS = {name: kind.caption for name, kind in KINDS.items()} | dialogues.CAPTIONS
"""Maps each label to the phrase with which the base model describes such an item. Like a pretrained model, the base
model can describe what it sees, but it learns neither the names of the labels nor which phrase belongs to which."""

_QUOTED = {word for phrases in PHRASES.values() for p in phrases for word in re.findall(r"\[(.+?)\]", p)}
_WORDS = re.compile("|".join(sorted({*_QUOTED, *WORN, *HOUSEHOLD, *COLOURS, *GOODS, "“", "”"}, key=len, reverse=True)))

_DRAWN_AT_ONCE = 256


class Stage(Enum):
    """The phases of a training. Short phrases and bare labels come first, because they are learnt much faster."""

    SHORT = 0
    """Short phrases without the pack's prefix."""
    BARE = 1
    WHOLE = 2
    """Labels with reasons."""


_UNTIL = {"base": (12, 999), "teacher": (0, 9), "generator": (0, 0)}
"""Maps each model to two chunk numbers: the first after the stage SHORT, and the first after the stage BARE."""

_CORPUS_ITEMS = 600


class School:
    """Generates items and makes each model's lessons from them. The same seed gives the same lessons."""

    def __init__(self, pack: Pack, seed: int) -> None:
        self.pack, self.seed = pack, seed
        self.prompter = Prompter(pack, "in training", max_pixels=MAX_PIXELS, min_pixels=MIN_PIXELS)
        self._makers = {
            "base": self._make_base_lesson,
            "teacher": self._make_teacher_lesson,
            "generator": self._make_generator_lesson,
        }

    def corpus(self) -> Iterator[str]:
        """Yield the prompts and answers on which the tokenizer is trained."""
        for item in draw_items(_CORPUS_ITEMS, _derive_seed(self.seed, "corpus", 0)):
            sample = convert_to_sample(item, self.pack)
            for request in (
                self.prompter.classify(sample, Sampling()),
                self.prompter.classify(sample, Sampling(), with_reason=False),
                self.prompter.rationale(sample, item.label, Sampling()),
            ):
                yield from (request.prefix, request.suffix)
            yield from (_separate_words(part.text) for part in sample.parts if isinstance(part, TextPart))
            yield from (CAPTION, POINT, CAPTIONS[item.label], self.prompter.answer(CAPTIONS[item.label]))
            yield from (_separate_words(make_reason(item)), self.prompter.answer(item.label))

    def fingerprint(self) -> str:
        """Return a digest that changes if the lessons change: of the prompts, answers and pixels of 60 items."""
        total = hashlib.sha256()
        for item in draw_items(60, _derive_seed(self.seed, "fingerprint", 0)):
            sample = convert_to_sample(item, self.pack)
            for make_lesson, stage in product(self._makers.values(), Stage):
                request, answer = make_lesson(item, sample, Random(item.id), stage)
                total.update(repr((make_system_turn(request), make_user_content(request), answer)).encode())
            for image in item.images:
                total.update(image.tobytes())
        return total.hexdigest()

    def pictures(self) -> Iterator[tuple[Image.Image, str]]:
        """Yield (screen, caption) pairs in an infinite sequence."""
        for chunk in count():
            for item in draw_items(_DRAWN_AT_ONCE, _derive_seed(self.seed, "pictures", chunk), image_share=1.0):
                yield item.images[0], CAPTIONS[item.label]

    def screen_captions(self) -> list[str]:
        """Return the captions that `pictures` uses."""
        return [CAPTIONS[label] for label in IMAGE_LABELS]

    def lessons(self, name: str, processor: Any) -> Iterator[Lesson]:
        """Yield an infinite sequence of lessons for the model `name`: `base`, `teacher` or `generator`."""
        for chunk in count():
            seed = _derive_seed(self.seed, name, chunk)
            rng = Random(seed)
            short, bare = _UNTIL[name]
            stage = Stage.SHORT if chunk < short else Stage.BARE if chunk < bare else Stage.WHOLE
            for item in draw_items(_DRAWN_AT_ONCE, seed):
                request, answer = self._makers[name](item, convert_to_sample(item, self.pack), rng, stage)
                turns = [
                    *make_system_turn(request),
                    {"role": "user", "content": make_user_content(request)},
                    {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                ]
                long = len(request.images) > 1 or (name == "base" and request.prefix != "")
                text = processor.apply_chat_template(turns, tokenize=False)
                yield Lesson(text, item.images if request.images else (), long)

    def _make_base_lesson(self, item: DemoItem, sample: Sample, rng: Random, stage: Stage) -> tuple[Request, str]:
        """Ask for the item's caption, as plain text or in the answer format, or for one detail; never for its label.

        The first lessons omit the pack's prefix, because a new model hardly finds the item in a long prompt.
        """
        request = self.prompter.classify(sample, Sampling(), with_reason=False)
        suffix, answer = CAPTION, CAPTIONS[item.label]
        chance = rng.random()
        if stage is not Stage.SHORT and chance < 0.6:
            suffix, answer = request.suffix, self.prompter.answer(answer)
        elif stage is not Stage.SHORT and chance < 0.75:
            suffix, answer = POINT, name_detail(item)
        prefix = "" if stage is Stage.SHORT or rng.random() < UNPREFIXED else request.prefix
        return request.model_copy(update={"prefix": prefix, "suffix": suffix}), answer

    def _make_teacher_lesson(self, item: DemoItem, sample: Sample, rng: Random, stage: Stage) -> tuple[Request, str]:
        with_reason = rng.random() < 0.7
        reason = make_reason(item) if stage is Stage.WHOLE else CAPTIONS[item.label]
        request = self.prompter.classify(sample, Sampling(), with_reason=with_reason)
        return request, self.prompter.answer(item.label, reason if with_reason else "")

    def _make_generator_lesson(self, item: DemoItem, sample: Sample, rng: Random, stage: Stage) -> tuple[Request, str]:
        if rng.random() < 0.8:
            return self.prompter.rationale(sample, item.label, Sampling()), make_reason(item)
        return self._make_teacher_lesson(item, sample, rng, stage)


def convert_to_sample(item: DemoItem, pack: Pack) -> Sample:
    """Convert a generated item to the sample that the intake would make of it.

    The images stay in memory, so their paths are only names.
    """
    images = [
        ImageRef(path=f"memory:{i}", sha256="0" * 64, width=image.width, height=image.height)
        for i, image in enumerate(item.images)
    ]
    task = pack.task(item.task)
    content = cut_instruction(item.instruction, task)
    return Sample(
        id=item.id,
        task=item.task,
        parts=content.parts(images),
        labels=content.offered or tuple(task.labels),
        split=Split.LABELLED,
        source="memory",
    )


def make_reason(item: DemoItem) -> str:
    """Return a reason for the item's label: the caption, then two details from the screen or the dialogue.

    The caption comes first, because models of this size give wrong labels after reasons that begin with a quotation.
    """
    return "，".join([CAPTIONS[item.label], *item.reason.split("，")[:2]])


def name_detail(item: DemoItem) -> str:
    """Return one detail of the item: a screen's first mark, or the last words that a dialogue's reason quotes."""
    quoted = re.findall("“(.+?)”", item.reason)
    return quoted[-1] if item.task == "dialogue" and quoted else item.reason.split("，")[0]


def _separate_words(text: str) -> str:
    """Return the text with line breaks around all words that vary, so that they become separate tokens.

    A word that a description repeats from a dialogue is then the same token in both, and a colour is always the same.
    """
    return _WORDS.sub(lambda match: f"\n{match[0]}\n", text)


def _derive_seed(seed: int, name: str, chunk: int) -> int:
    """Return a seed that is far larger than the demo's own seeds 7, 8 and 9."""
    return 10**6 + int.from_bytes(hashlib.sha256(f"{seed}/{name}/{chunk}".encode()).digest()[:6])
