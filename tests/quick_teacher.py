"""A teacher in under a minute, for tests and benchmarks that need real answers but not the demo's whole schooling.

It has the demo's architecture, tokenizer and processor, and is taught what the demo's teacher is taught first: screens,
answered in the pack's form with a short reason. The pack's glosses are left out of its prompts, which halves a step.
Of fresh screens it gets about 60 % right, and is sure of what it says: its labels hang on no rounding.
"""

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from transformers import AutoModelForImageTextToText, AutoProcessor

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.dataset import draw_items
from tasks.demo.lessons import CAPTIONS, School, convert_to_sample
from tasks.demo.training import Collator, Lesson, group_by_length, learn_to_see, train
from tasks.media import ImagePart, ImageRef, TextPart
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_user_content
from tasks.records import Request, Sample, Sampling

SEED = 5
MIN_PIXELS, MAX_PIXELS = 56 * 56, 1280 * 28 * 28
_SEEING, _STEPS = 60, 110


def teach(folder: Path) -> Path:
    """Train the teacher into `folder`, or find it there; 35 s on two free cores."""
    if (folder / "model.safetensors").exists():
        return folder
    school = School(load_pack("demo"), SEED)
    write_checkpoint(folder, school.corpus(), SEED)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    (folder / "model.safetensors").unlink()  # there again, and whole, once it is taught
    pictures, captions = school.pictures(), school.screen_captions()
    learn_to_see(model, processor, pictures, captions, steps=_SEEING, seed=SEED, report=lambda *_: None)
    lessons = group_by_length(_lessons(school, processor))
    train(model, lessons, Collator(processor), steps=_STEPS, rate=3e-3, seed=SEED, report=lambda *_: None)
    model.save_pretrained(folder)
    return folder


def screen_samples(n: int, seed: int, folder: Path) -> list[Sample]:
    """Fresh screens, their images under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pack = load_pack("demo")
    samples: list[Sample] = []
    for item in draw_items(n, seed, image_share=1.0):
        file, [image] = folder / f"{item.id}.png", item.images
        image.save(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        ref = ImageRef(path=str(file), sha256=digest, width=image.width, height=image.height)
        sample = convert_to_sample(item, pack)
        parts = tuple(part if isinstance(part, TextPart) else ImagePart(image=ref) for part in sample.parts)
        samples.append(sample.model_copy(update={"parts": parts, "given": item.label}))
    return samples


def ask_label(sample: Sample, sampling: Sampling, *, with_reason: bool = True, glosses: bool = False) -> Request:
    """The classify request as the teacher was taught it."""
    prompter = Prompter(load_pack("demo"), "quick teacher", max_pixels=MAX_PIXELS, min_pixels=MIN_PIXELS)
    request = prompter.classify(sample, sampling, with_reason=with_reason)
    return request if glosses else request.model_copy(update={"prefix": ""})


def _lessons(school: School, processor: object) -> Iterator[Lesson]:
    for chunk in count():
        for number, item in enumerate(draw_items(256, 900 + chunk, image_share=1.0)):
            bare = number % 4 == 0
            request = school.prompter.classify(convert_to_sample(item, school.pack), Sampling(), with_reason=not bare)
            answer = school.prompter.answer(item.label, "" if bare else CAPTIONS[item.label])
            turns = [
                {"role": "user", "content": make_user_content(request.model_copy(update={"prefix": ""}))},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ]
            yield Lesson(processor.apply_chat_template(turns, tokenize=False), item.images)  # type: ignore[attr-defined]
