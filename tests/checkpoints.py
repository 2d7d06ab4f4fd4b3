"""Random checkpoints of every generation of Qwen-VL, small but for the vocabulary, in the layout of the hub."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.convert_slow_tokenizer import TikTokenConverter

from tasks.demo.checkpoint import CHAT_TEMPLATE, MAX_POSITIONS, SPECIAL_TOKENS, train_tokenizer

MIN_PIXELS, MAX_PIXELS = 56 * 56, 1280 * 28 * 28
ROWS = 152_064
"""Rows of the embedding of Qwen2-VL-7B, more than its vocabulary has entries."""

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEFAULT_SYSTEM = CHAT_TEMPLATE[: CHAT_TEMPLATE.index("{%- for turn")]
_GENERATION = "{{ '<|im_start|>assistant\\n' }}"
_EMPTY_THOUGHTS = """\
{%- if loop.last and turn.role == 'assistant' -%}
{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif -%}
"""
_IMAGES = "{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}\n"
_VIDEOS = """\
{%- if part.type == 'video' or 'video' in part or 'video_url' in part -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- elif part.type == 'image' or 'image' in part or 'image_url' in part -%}
"""
_WITH_VIDEOS = CHAT_TEMPLATE.replace(_IMAGES, _VIDEOS)
_ANSWER = "{{ '<|im_start|>' + turn.role + '\\n' }}\n"


@dataclass(frozen=True)
class Generation:
    """How the checkpoints of a generation differ from those of Qwen2-VL."""

    model_type: str
    patch_size: int
    thinks: bool = False

    @property
    def chat_template(self) -> str:
        """Without a default system turn from Qwen3-VL on; of a thinking model, thoughts come before the last answer."""
        if not self.model_type.startswith("qwen3"):
            return _WITH_VIDEOS
        template = _WITH_VIDEOS.removeprefix(_DEFAULT_SYSTEM)
        if self.thinks:
            template = template.replace(_ANSWER, _ANSWER + _EMPTY_THOUGHTS)
            template = template.replace(_GENERATION, "{{ '<|im_start|>assistant\\n<think>\\n' }}")
        return template


GENERATIONS = {
    "qwen2_vl": Generation("qwen2_vl", 14),
    "qwen2_5_vl": Generation("qwen2_5_vl", 14),
    "qwen3_vl": Generation("qwen3_vl", 16),
    "qwen3_vl_thinking": Generation("qwen3_vl", 16, thinks=True),
}


def write_random_checkpoint(
    folder: Path, tokenizer: Qwen2Tokenizer, name: str = "qwen2_vl", *, rows: int | None = None, spaces: bool = True
) -> Path:
    """Write an untrained checkpoint of the generation `name` to `folder`, with `rows` rows of the embedding.

    Without `spaces` it writes none: where JSON allows them, a random model may write nothing else until it is cut.
    """
    generation = GENERATIONS[name]
    tokenizer.chat_template = generation.chat_template
    tokenizer.save_pretrained(folder)
    processor = _make_processor(generation, tokenizer)
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)  # vLLM and older readers look for a file of its own
    config = _make_config(generation, tokenizer, rows or len(tokenizer), tied=spaces)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
    if not spaces:
        _forbid_spaces(model, tokenizer)
    end, eos = (tokenizer.get_vocab()[token] for token in ("<|im_end|>", "<|endoftext|>"))
    model.generation_config = GenerationConfig(bos_token_id=eos, eos_token_id=[end, eos], pad_token_id=eos)
    model.save_pretrained(folder)
    return folder


def _forbid_spaces(model: Any, tokenizer: Qwen2Tokenizer) -> None:
    """Make tokens of white space unlikely. The first dimension is the same for all tokens and acts as a bias.

    In small models another sign can reach the end of the network if the bias is weak; with the whole vocabulary a
    strong one leaves too little to tell labels apart.
    """
    bias = 0.1 if len(tokenizer) > 100_000 else 1.0
    spaces = [i for token, i in tokenizer.get_vocab().items() if not set(token) - set("ĠĊĉč")]
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = bias
        model.get_output_embeddings().weight[:, 0] = 0.0
        model.get_output_embeddings().weight[spaces, 0] = -50.0


def make_small_tokenizer(texts: Iterable[str] = ()) -> Qwen2Tokenizer:
    """Train a tokenizer on `texts` and a few others, with the tokens of thinking models, which are not special."""
    own = (f'用户: 第{i}个订单\n客服: 请看图。{{"理由": "图中有单号", "所属类别": "退款"}}' for i in range(200))
    tokenizer = train_tokenizer([*own, *texts])
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def find_real_vocabulary() -> Path:
    """Return the file of Qwen's merges in the package `dashscope`, which is not imported: it wants further packages."""
    found = find_spec("dashscope")
    assert found is not None and found.origin, "install requirements/test.lock: without dashscope these tests fail"
    return Path(found.origin).parent / "resources" / "qwen.tiktoken"


def make_real_tokenizer() -> Qwen2Tokenizer:
    """Return Qwen2-VL's own tokenizer, from the vocabulary that the package `dashscope` carries."""
    made = TikTokenConverter(
        vocab_file=str(find_real_vocabulary()), pattern=SPLIT, extra_special_tokens=list(SPECIAL_TOKENS)
    ).converted()
    tokenizer = Qwen2Tokenizer(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.model_max_length = MAX_POSITIONS
    return tokenizer


def _make_processor(generation: Generation, tokenizer: Qwen2Tokenizer) -> Any:
    size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    # vLLM normalises frames by the values for images, so both must have the same, as in Qwen's own checkpoints
    half = [0.5, 0.5, 0.5]
    means = {"image_mean": half, "image_std": half} if generation.model_type == "qwen3_vl" else {}
    images = Qwen2VLImageProcessor(size=size, patch_size=generation.patch_size, **means)
    classes: dict[str, Any] = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}
    kind = classes.get(generation.model_type, Qwen3VLProcessor)
    # as in Qwen's own checkpoints; the classes' defaults enlarge small frames
    of_all = {"shortest_edge": 4096, "longest_edge": 25_165_824}
    videos = Qwen3VLVideoProcessor(size=of_all) if kind is Qwen3VLProcessor else Qwen2VLVideoProcessor(size=size)
    return kind(images, tokenizer, videos, chat_template=generation.chat_template)


def _make_config(generation: Generation, tokenizer: Qwen2Tokenizer, rows: int, *, tied: bool) -> Any:
    """Heads of 32: in mrope 4 + 6 + 6 pairs for time, height and width."""
    ids = tokenizer.get_vocab()
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": generation.patch_size}
    if generation.model_type == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": 64}
    else:
        vision |= {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 64}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    if generation.model_type == "qwen2_5_vl":
        vision |= {"fullatt_block_indexes": [1], "window_size": 112}
    if generation.model_type == "qwen3_vl":
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        rope["mrope_interleaved"] = True
    text = {
        **{"vocab_size": rows, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.05},
        **{"max_position_embeddings": MAX_POSITIONS, "rms_norm_eps": 1e-6, "rope_parameters": rope},
        **{"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "tie_word_embeddings": tied},
    }
    return AutoConfig.for_model(
        generation.model_type,
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
