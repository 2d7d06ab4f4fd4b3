"""On a CUDA device: the local engine with a Qwen2-VL-7B of random weights, with and without a cap on pixels.

Random weights cost what trained ones do. Items are phone screenshots asked for a label, without a reason and with one;
reported are items a second and the share of the arithmetic ceiling: the floating-point operations that the model has to
do, over those that large bf16 matrix products reach on this very device. `--rehearse` runs the same with a model of
laptop size, to see that the script works; its figures mean nothing.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, Qwen2VLConfig

from tasks.demo.checkpoint import write_checkpoint
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache, compute_sides
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import ImagePart, ImageRef, Request, Sample, Sampling, Split

ROUNDS, ITEMS, REASON_TOKENS = 3, 48, 48
SCREEN = (1080, 2340)
CAPS = {"capped": 1280 * 28 * 28, "uncapped": 16384 * 28 * 28}
"""The second is what the base checkpoint allows."""
TEXT_7B = {
    **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
    **{"num_key_value_heads": 4, "vocab_size": 152064},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION_7B = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "mlp_ratio": 4}


@dataclass(frozen=True)
class Cost:
    """What one item asks of the model."""

    prompt: int
    """Tokens."""
    patches: int
    drawn: int
    """Tokens drawn after the prompt."""

    def operations(self, config: Qwen2VLConfig) -> float:
        """Floating-point operations: two a weight and token, and attention's two products over what is seen."""
        text, vision = config.text_config, config.vision_config
        head = text.hidden_size // text.num_attention_heads
        width = text.hidden_size * (2 * text.hidden_size + 2 * head * text.num_key_value_heads)
        layer = width + 3 * text.hidden_size * text.intermediate_size
        tokens = self.prompt + self.drawn
        words = 2 * tokens * text.num_hidden_layers * layer + 2 * tokens**2 * text.num_hidden_layers * text.hidden_size
        block = vision.embed_dim**2 * (4 + 2 * vision.mlp_ratio)
        looks = 2 * self.patches * vision.depth * block + 4 * self.patches**2 * vision.depth * vision.embed_dim
        return words + looks + 2 * (1 + self.drawn) * text.hidden_size * text.vocab_size


def checkpoint(folder: Path, rehearse: bool) -> Path:
    """A checkpoint of the 7B's sizes and random weights, with the demo's tokenizer and processor."""
    pack = load_pack("demo")
    write_checkpoint(folder, [label for task in pack.tasks.values() for label in task.labels] * 50)
    if rehearse:
        return folder
    config = config_7b(Qwen2VLConfig.from_pretrained(folder))
    (folder / "model.safetensors").unlink()
    with torch.device("cuda"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def config_7b(small: Qwen2VLConfig) -> Qwen2VLConfig:
    """The small configuration with the 7B's sizes; special tokens keep their ids."""
    text = {k: v for k, v in small.text_config.to_dict().items() if k != "layer_types"}  # one entry a layer
    return Qwen2VLConfig(
        **{k: v for k, v in small.to_dict().items() if k.endswith("_token_id")},
        text_config={**text, **TEXT_7B},
        vision_config={**small.vision_config.to_dict(), **VISION_7B},
        tie_word_embeddings=False,
        architectures=small.architectures,
    )


def requests(folder: Path, cap: int, *, with_reason: bool) -> list[Request]:
    """One screenshot each."""
    pack, noise = load_pack("demo"), np.random.default_rng(0)
    prompter = Prompter(pack, "7B", max_pixels=cap, min_pixels=56 * 56)
    task = pack.task("image")
    made: list[Request] = []
    for number in range(ITEMS):
        file = folder / f"{number}.jpg"
        if not file.exists():
            blocks = noise.integers(0, 255, (SCREEN[1] // 20, SCREEN[0] // 20, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize(SCREEN).save(file)
        digest = sha256(file.read_bytes()).hexdigest()
        image = ImagePart(image=ImageRef(path=str(file), sha256=digest, width=SCREEN[0], height=SCREEN[1]))
        labels = tuple(task.labels)
        sample = Sample(
            id=str(number), task="image", parts=(image,), labels=labels, split=Split.UNLABELLED, source=str(folder)
        )
        sampling = Sampling(max_tokens=REASON_TOKENS, label_probabilities=True)
        made.append(prompter.classify(sample, sampling, with_reason=with_reason))
    return made


def ceiling(device: str) -> float:
    """Operations a second of large bf16 matrix products here: the best of ten."""
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


def main() -> None:
    """Measure, print items a second and the share of the ceiling."""
    rehearse = "--rehearse" in sys.argv
    if not torch.cuda.is_available() and not rehearse:
        print("no CUDA device here: skipped")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = checkpoint(folder / "model", rehearse)
        peak = ceiling(device)
        print(f"Qwen2-VL-7B of random weights, bf16, {name}, matrix products at {peak / 1e12:.4g} TFLOP/s")
        spec = EngineSpec(engine="local", model=str(model), dtype="bfloat16", batch_size=8)
        engine = LocalEngine(spec, Workplace(ImageCache(folder / "cache"), folder / "logs"))
        config = Qwen2VLConfig.from_pretrained(model)
        (folder / "screens").mkdir()
        rows = [(cap, with_reason) for cap in CAPS for with_reason in (False, True)]
        measured: dict[tuple[str, bool], list[tuple[float, float]]] = {row: [] for row in rows}
        for number in range(ROUNDS + 1):
            for cap, with_reason in rows:
                asked = requests(folder / "screens", CAPS[cap], with_reason=with_reason)
                began = time.perf_counter()
                found = list(engine.generate(asked))
                seconds = time.perf_counter() - began
                if faults := {g.detail for g in found if g.outcome != "ok"}:
                    raise RuntimeError(f"{cap}: {faults}")
                height, width = compute_sides(
                    asked[0].images[0], min_pixels=56 * 56, max_pixels=CAPS[cap], patch_size=14
                )
                patches = height * width // 14**2
                work = sum(Cost(g.tokens_in, patches, g.tokens_out).operations(config) for g in found)
                if number:  # the first round fills the image cache and warms kernels up
                    measured[cap, with_reason].append((ITEMS / seconds, work / seconds / peak))
        engine.close()
    for (cap, with_reason), figures in measured.items():
        rate, share = (median(column) for column in zip(*figures, strict=True))
        what = f"{cap}, {'reason and label' if with_reason else 'label only'}"
        print(f"  {what:28}{rate:8.2f} items/s, {share:6.1%} of the ceiling")


if __name__ == "__main__":
    main()
