"""Recordings that a tiny model learns to read: its labels and boxes, in transformers and in vLLM.

`python tests/benchmarks/grounded_videos.py`, seven CPU minutes; OMP_NUM_THREADS=1 is fastest. An item is a drawn screen
of six grey buttons and a recording of it in eight frames. In three of these a button is lit, in a colour that gives
the label, and later another one in another colour, which must be ignored. The box is that of the first button, on the
screen, where nothing is lit. A guess of the label is right once in four times, of the box once in six.

The model is that of grounded.py, and its vision tower learns to see before. Then all of it learns from the rows and
batches with which students are trained. Of 100 new items, after 150 steps:

  right labels and boxes in transformers                               100, 100
  the same if the recording is played backwards                          0,   0
  right labels and boxes in vLLM, and the same as in transformers      100, 100

With only the first button, 100 of 100 are right after 100 steps.
"""

import hashlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image
from transformers import AutoModelForImageTextToText
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.training import learn_to_see, train
from tasks.media import Box, BoxForm, ImageRef, VideoPart, VideoRef
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.installation import find_vllm
from tasks.models.image_cache import ImageCache
from tasks.models.positions import correct_positions
from tasks.models.qwen_vl import load_processor
from tasks.prompts.box_forms import fill_in_boxes
from tasks.prompts.boxes import compute_overlap
from tasks.prompts.parsing import parse
from tasks.prompts.prompter import Prompter
from tasks.records import Prediction, Request, Sample, Sampling, Split
from tasks.students.lora_collator import VideoCollator
from tasks.students.lora_dataset import make_dataset
from tests.benchmarks.grounded import (
    KINDS,
    OTHERS,
    PACK,
    PLACES,
    SECTIONS,
    SEEING_STEPS,
    SEEN,
    WIDTH,
    draw_buttons,
    is_right,
    stream_pictures,
)
from tests.checkpoints import GENERATIONS
from tests.tasks.making import parts

FRAMES, LIT = 8, 3
STARTS = ((0, 3), (0, 4), (0, 5), (1, 4), (1, 5), (2, 5))
"""Frames from which on the first and the second button are lit."""
TAUGHT, ASKED = 800, 100
STEPS = 150
FORM = BoxForm.QWEN2


class ShortPrompter(Prompter):
    """Asks without the glosses, which halves a step."""

    def classify(self, *arguments: Any, **options: Any) -> Request:
        return super().classify(*arguments, **options).model_copy(update={"prefix": ""})


PROMPTER = ShortPrompter(PACK, "tiny", max_pixels=SEEN[0] * SEEN[1], min_pixels=56 * 56, texts={})


def record(folder: Path, name: str, rng: random.Random) -> Sample:
    """Draw an item into `folder`."""
    labels, rows, starts = rng.sample(list(KINDS), 2), rng.sample(range(len(SECTIONS)), 2), rng.choice(STARTS)
    grey = [(other, "#8a8a8a") for other in rng.sample(OTHERS, len(SECTIONS))]
    image, corners = draw_buttons(grey)
    still = save(image, folder / f"{name}.png")
    frames = [still] * FRAMES
    for label, row, start in zip(labels, rows, starts, strict=True):
        image, _ = draw_buttons([*grey[:row], KINDS[label], *grey[row + 1 :]])
        frames[start : start + LIT] = [save(image, folder / f"{name}-{start}.png")] * LIT
    digest = hashlib.sha256("".join(frame.sha256 for frame in frames).encode()).hexdigest()
    times = tuple(0.5 * number for number in range(FRAMES))
    clip = VideoRef(path=f"/{name}.mp4", sha256=digest, frames=tuple(frames), times=times, seconds=FRAMES / 2)
    left, top, right, bottom = (corner * SEEN[0] / WIDTH for corner in corners[rows[0]])
    return Sample(
        id=name, task="image", parts=parts(still, clip), labels=tuple(KINDS), given=labels[0],
        boxes=(Box(ref=KINDS[labels[0]][0], corners=(left, top, right, bottom)),), split=Split.LABELLED, source="drawn",
    )  # fmt: skip


def save(image: Image.Image, file: Path) -> ImageRef:
    image.resize(SEEN, Image.Resampling.BICUBIC).save(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return ImageRef(path=str(file), sha256=digest, width=SEEN[0], height=SEEN[1])


def draw_items(folder: Path, number: int, seed: int) -> list[Sample]:
    folder.mkdir()
    rng = random.Random(seed)
    return [record(folder, f"{at}", rng) for at in range(number)]


def draw_forever(rows: Any, seed: int) -> Iterator[Any]:
    """Yield the rows in random order, all of them before the first again."""
    order, rng = list(range(len(rows))), random.Random(seed)
    while True:
        rng.shuffle(order)
        for number in order:
            yield rows[number]


def write_pair(sample: Sample, reason: str) -> str:
    """Return question and answer as text, for the tokenizer to learn."""
    text = PROMPTER.answer(sample.given or "", reason, boxes=1)
    return PROMPTER.classify(sample, Sampling()).suffix + fill_in_boxes(text, sample.boxes, sample.images, FORM)


def teach(folder: Path) -> Path:
    """Train a model and return its folder."""
    samples = draw_items(folder / "taught", TAUGHT, 1)
    pairs = [(sample, f"有“{sample.boxes[0].ref}”按钮") for sample in samples]
    made = write_checkpoint(folder / "model", [write_pair(*pair) for pair in pairs[:300]], 0)
    # the demo has no recordings, and its template none either
    (made / "chat_template.jinja").write_text(GENERATIONS["qwen2_vl"].chat_template, encoding="utf-8")
    processor = load_processor(str(made))
    processor.image_processor.do_resize = False
    model = AutoModelForImageTextToText.from_pretrained(made, local_files_only=True, attn_implementation="eager")
    correct_positions(model)

    def report(step: int, total: int, loss: float) -> None:
        if step % 10 == 0:
            print(f"  step {step} of {total}: loss {loss:.3f}, {sum(os.times()[:4]):.0f} CPU s", flush=True)

    captions = [*KINDS, *PLACES]
    learn_to_see(model, processor, stream_pictures(3), captions, steps=SEEING_STEPS, seed=0, report=report)
    rows = make_dataset(PROMPTER, pairs, processor.image_processor.patch_size, ImageCache(folder / "images"), FORM)
    collate = VideoCollator(DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True))
    train(model, draw_forever(rows, 2), collate, steps=STEPS, rate=3e-3, seed=0, report=report)
    model.save_pretrained(made)
    return made


def answer(model: Path, kind: str, samples: Sequence[Sample], folder: Path) -> list[Prediction]:
    """Return what a model says about `samples` in an engine of this kind, which has its files in `folder`."""
    bounds = {"min_pixels": PROMPTER.min_pixels, "max_pixels": PROMPTER.max_pixels}
    spec = EngineSpec(engine=kind, model=str(model), dtype="float32", **bounds)
    engine = open_engine(spec, Workplace(ImageCache(folder / "images"), folder / "logs", 1, 1))
    requests = [PROMPTER.classify(sample, Sampling()) for sample in samples]
    answers = {answer.key: answer for answer in engine.generate(requests)}
    engine.close()
    return [parse(r, answers[r.key], source="student", model="tiny") for r in requests]


def reverse(sample: Sample) -> Sample:
    """Return the item with its recording played backwards."""
    still, clip = sample.parts
    assert isinstance(clip, VideoPart)
    backwards = clip.video.model_copy(update={"frames": clip.video.frames[::-1]})
    return sample.model_copy(update={"parts": (still, VideoPart(video=backwards))})


def count_right(read: Sequence[Prediction], samples: Sequence[Sample]) -> tuple[int, int]:
    """Return how many labels and boxes are right."""
    labels = sum(p.label == s.given for p, s in zip(read, samples, strict=True))
    return labels, sum(is_right(p.boxes, s.boxes[0]) for p, s in zip(read, samples, strict=True))


def compare(one: Sequence[Prediction], other: Sequence[Prediction]) -> tuple[int, int]:
    """Return how many labels are the same, and how many boxes overlap by at least 0.9."""
    pairs = list(zip(one, other, strict=True))
    overlaps = [compute_overlap(p.boxes[0], q.boxes[0]) for p, q in pairs if len(p.boxes) == len(q.boxes) == 1]
    return sum(p.label == q.label for p, q in pairs), sum(overlap >= 0.9 for overlap in overlaps)


def main() -> None:
    """Train, ask in transformers and in vLLM, and print what was found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ask_about_recordings(teach(folder), folder)
    print(f"{sum(os.times()[:4]):.0f} CPU seconds")


def ask_about_recordings(model: Path, folder: Path) -> None:
    samples = draw_items(folder / "asked", ASKED, 99)
    local = answer(model, "local", [*samples, *map(reverse, samples)], folder)
    print(f"{count_right(local[:ASKED], samples)} labels and boxes of {ASKED} are right in transformers,")
    print(f"  {compare(local[:ASKED], local[ASKED:])} stay the same when the recordings are played backwards")
    if find_vllm() is not None:
        served = answer(model, "vllm", samples, folder)
        print(f"{count_right(served, samples)} are right in vLLM, {compare(local[:ASKED], served)} the same in both")


if __name__ == "__main__":
    main()
