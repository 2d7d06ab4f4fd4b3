"""On a CUDA device: the local engine, and LoRA folds with default settings, on a Qwen2-VL-7B of random weights.

Random weights cost what trained ones do. Items are phone screenshots. The engine is asked for a label, without a reason
and with one, with and without a cap on pixels; then two folds are trained, one after the other, each in a child process
that must leave the card free. Reported are rates, memory, the time spent waiting for images, and the share of the
ceiling: the floating-point operations that the model has to do, over those that large bf16 matrix products reach on
this very device. All of it takes less than 8 minutes of an H200. It needs torch, transformers, peft, trl and
qwen-vl-utils, and no vLLM. `--rehearse` runs the same with a model of laptop size, to see that the script works; its
figures mean nothing.
"""

import json
import sys
import tempfile
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, Qwen2VLConfig

from tasks.demo.checkpoint import write_checkpoint
from tasks.media import ImagePart, ImageRef
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.gpus import list_gpus
from tasks.models.engines.spec import EngineSpec
from tasks.models.gpu_hours import Work, count_operations, measure_work
from tasks.models.image_cache import ImageCache, compute_sides
from tasks.models.model_sizes import ModelSize, find_model_size
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, Sampling, Split
from tasks.settings import MAX_PIXELS, MIN_PIXELS
from tasks.students.lora import LoraRecipe
from tasks.students.loss_curves import Progress
from tasks.students.settings import StudentSpec
from tasks.students.student_folder import read_facts
from tasks.students.worker_pool import TrainingPool

ROUNDS, ITEMS, REASON_TOKENS, UPDATES, FOLDS = 2, 48, 48, 8, 2
SCREEN, SMALL, PATCH = (1080, 2340), (108, 234), 14
"""`SMALL` is for the rehearsal."""
CAPS = {"capped": 1280 * 28 * 28, "uncapped": 16384 * 28 * 28}
"""The second is what the base checkpoint allows."""
TEXT_7B = {
    **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
    **{"num_key_value_heads": 4, "vocab_size": 152064},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION_7B = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "mlp_ratio": 4}


def write_model(folder: Path, rehearse: bool) -> ModelSize:
    """Write a checkpoint of the 7B's sizes and random weights, with the demo's tokenizer and processor."""
    pack = load_pack("demo")
    write_checkpoint(folder, [label for task in pack.tasks.values() for label in task.labels] * 50)
    if not rehearse:
        config = make_config_7b(Qwen2VLConfig.from_pretrained(folder))
        (folder / "model.safetensors").unlink()
        with torch.device("cuda"):
            model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        del model
        torch.cuda.empty_cache()
    size = find_model_size(str(folder))
    assert size is not None
    return size


def make_config_7b(small: Qwen2VLConfig) -> Qwen2VLConfig:
    """Return the small configuration with the 7B's sizes; special tokens keep their ids."""
    text = {k: v for k, v in small.text_config.to_dict().items() if k != "layer_types"}  # one entry a layer
    return Qwen2VLConfig(
        **{k: v for k, v in small.to_dict().items() if k.endswith("_token_id")},
        text_config={**text, **TEXT_7B},
        vision_config={**small.vision_config.to_dict(), **VISION_7B},
        tie_word_embeddings=False,
        architectures=small.architectures,
    )


def draw_samples(folder: Path, count: int, screen: tuple[int, int]) -> list[Sample]:
    """Draw labelled screenshots."""
    width, height = screen
    folder.mkdir()
    labels, noise = tuple(load_pack("demo").task("image").labels), np.random.default_rng(0)
    samples: list[Sample] = []
    for number in range(count):
        file = folder / f"{number}.jpg"
        blocks = noise.integers(0, 255, (height // 20, width // 20, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(screen).save(file)
        digest = sha256(file.read_bytes()).hexdigest()
        image = ImagePart(image=ImageRef(path=str(file), sha256=digest, width=width, height=height))
        sample = Sample(
            id=str(number), task="image", parts=(image,), labels=labels, split=Split.LABELLED, source="drawn"
        )
        samples.append(sample.model_copy(update={"given": labels[number % len(labels)]}))
    return samples


def find_ceiling(device: str) -> float:
    """Return the operations per second of large bf16 matrix products here: the best of ten."""
    size = 8192 if device == "cuda" else 512
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(10):
        _wait(device)
        began = time.perf_counter()
        a @ a
        _wait(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ask(folder: Path, samples: list[Sample], size: ModelSize, ceiling: float, rounds: int, reason: int) -> None:
    """Print the local engine's items per second and its share of the ceiling."""
    spec = EngineSpec(engine="local", model=str(folder / "model"), dtype="bfloat16", batch_size=8)
    engine = open_engine(spec, Workplace(ImageCache(folder / "cache"), folder / "logs"))
    rows = [(cap, with_reason) for cap in CAPS for with_reason in (False, True)]
    measured: dict[tuple[str, bool], list[tuple[float, float]]] = {row: [] for row in rows}
    sampling = Sampling(max_tokens=reason, label_probabilities=True)
    for number in range(rounds + 1):
        for cap, with_reason in rows:
            prompter = Prompter(load_pack("demo"), "7B", max_pixels=CAPS[cap], min_pixels=MIN_PIXELS)
            asked = [prompter.classify(sample, sampling, with_reason=with_reason) for sample in samples]
            began = time.perf_counter()
            found = list(engine.generate(asked))
            seconds = time.perf_counter() - began
            if faults := {g.detail for g in found if g.outcome != "ok"}:
                raise RuntimeError(f"{cap}: {faults}")
            bounds = {"min_pixels": MIN_PIXELS, "max_pixels": CAPS[cap], "patch_size": PATCH}
            width, height = compute_sides(asked[0].images[0], **bounds)
            tokens = sum(g.tokens_in + g.tokens_out for g in found)
            work = Work(len(found), tokens, len(found), len(found) * width * height // PATCH**2)
            if number:  # the first round fills the image cache and warms kernels up
                rate = count_operations(size, work, passes=1) / seconds / ceiling
                measured[cap, with_reason].append((len(found) / seconds, rate))
    engine.close()
    for (cap, with_reason), figures in measured.items():
        rate, share = (median(column) for column in zip(*figures, strict=True))
        what = f"{cap}, {'reason and label' if with_reason else 'label only'}"
        print(f"  {what:28}{rate:8.2f} items/s, {share:6.1%} of the ceiling")


def train_fold(recipe: LoraRecipe, samples: list[Sample], fold: int, folder: Path, progress: Progress) -> None:
    """Train a fold, in a child process; write when each update ended and the peak memory to measured.json."""
    times: list[float] = []

    def note(step: int, steps: int, loss: float) -> None:
        times.append(time.perf_counter())
        progress(step, steps, loss)

    recipe.train(samples, fold, folder, note)
    peak = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    (folder / "measured.json").write_text(json.dumps({"times": times, "peak": peak}))


def train(folder: Path, samples: list[Sample], size: ModelSize, ceiling: float, updates: int) -> None:
    """Train folds one after another; print each one's time per update, memory and waiting share."""
    spec = StudentSpec(base=str(folder / "model"), steps=updates)
    prompter = Prompter(load_pack("demo"), "7B", max_pixels=MAX_PIXELS, min_pixels=MIN_PIXELS)
    recipe = LoraRecipe(spec, prompter, images=ImageCache(folder / "cache"))
    request = prompter.classify(samples[0], Sampling(), with_reason=False)
    work = measure_work(request, PATCH) * (spec.batch_size * spec.gradient_accumulation)
    operations = count_operations(size, work, passes=3)
    estimated = recipe.estimate_memory(samples)
    with TrainingPool(1, 1, lambda: estimated) as pool:
        for fold in range(FOLDS):
            began = time.perf_counter()
            pool.train(partial(train_fold, recipe, samples, fold, folder / f"fold{fold}"), lambda *_: None)
            seconds = time.perf_counter() - began
            measured = json.loads((folder / f"fold{fold}" / "measured.json").read_text())
            update = median(np.diff(measured["times"])) if updates > 1 else seconds
            waiting = read_facts(folder / f"fold{fold}")["waiting_share"]
            share = operations / update / ceiling
            needs = "unknown" if estimated is None else f"{estimated.mib / 1024:.1f}"
            free = [f"{gpu.free / 1024:.1f} of {gpu.total / 1024:.1f} GiB are free" for gpu in list_gpus()]
            print(f"  fold {fold}: {update:.2f} s per update of {work.requests:.0f} items, {share:.1%} of the ceiling")
            print(f"    {waiting:.1%} of the time waiting for images, {seconds:.0f} s with loading the model")
            print(f"    peak memory {measured['peak'] / 2**30:.1f} GiB (estimated {needs})", *free, sep="; then ")


def main() -> None:
    """Measure and print."""
    rehearse = "--rehearse" in sys.argv
    if not torch.cuda.is_available() and not rehearse:
        print("no CUDA device here: skipped")
        return
    device = "cuda" if torch.cuda.is_available() and not rehearse else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write_model(folder / "model", rehearse)
        ceiling = find_ceiling(device)
        print(f"Qwen2-VL of random weights, {size.parameters / 1e9:.2g} billion, bf16, {name}, ", end="")
        print(f"matrix products at {ceiling / 1e12:.4g} TFLOP/s")
        screens = folder / "screens"
        samples = draw_samples(screens, 2, SMALL) if rehearse else draw_samples(screens, ITEMS, SCREEN)
        ask(folder, samples, size, ceiling, *((1, 8) if rehearse else (ROUNDS, REASON_TOKENS)))
        train(folder, samples, size, ceiling, 1 if rehearse else UPDATES)
    print(f"  {time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
