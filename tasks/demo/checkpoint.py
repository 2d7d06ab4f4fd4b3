"""Write an untrained Qwen2-VL with about 1.4 million parameters, in the layout of the checkpoints on Hugging Face.

Any program that loads `Qwen/Qwen2-VL-7B-Instruct` by name can load this folder by path: configuration, weights,
tokenizer, processor and chat template have the same format, but are smaller.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

MAX_VOCABULARY = 2000
MAX_POSITIONS = 32768
MIN_PIXELS = 56 * 56
MAX_PIXELS = 1280 * 28 * 28

_TOKEN_NAMES = (
    "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end "
    "vision_start vision_end vision_pad image_pad video_pad"
)
SPECIAL_TOKENS = tuple(f"<|{name}|>" for name in _TOKEN_NAMES.split())

# Every tag trims both sides and every newline is explicit, so the Jinja settings of a reader can't change the result.
# vLLM looks for a loop over a turn's content to see that images go there.
CHAT_TEMPLATE = """\
{%- if messages and messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\\n' }}
{%- if turn.content is string -%}
{{ turn.content }}
{%- else -%}
{%- for part in turn.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def write_checkpoint(folder: Path, corpus: Iterable[str], seed: int = 0) -> Path:
    """Write an untrained checkpoint to `folder`, with a tokenizer that is trained on `corpus`, and return the folder.

    The same corpus and seed give the same files. Frequent texts are encoded in few tokens, so prompts, labels and
    answers should be as frequent in the corpus as they are in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(corpus)
    image_processor = Qwen2VLImageProcessor(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    video_processor = Qwen2VLVideoProcessor()
    Qwen2VLProcessor(image_processor, tokenizer, video_processor, chat_template=CHAT_TEMPLATE).save_pretrained(folder)
    # vLLM and older readers need the image processor in its own file, which the processor no longer writes.
    image_processor.save_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(_make_config(tokenizer))
    kernel = model.model.visual.patch_embed.proj.weight
    with torch.no_grad():
        kernel.copy_(_make_patch_filters(*kernel.shape))
    end, eos = (tokenizer.get_vocab()[token] for token in ("<|im_end|>", "<|endoftext|>"))
    model.generation_config = GenerationConfig(
        bos_token_id=eos, eos_token_id=[end, eos], pad_token_id=eos, do_sample=False
    )
    model.save_pretrained(folder)
    return folder


def train_tokenizer(corpus: Iterable[str]) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer like Qwen2's, with Qwen's special tokens and at most MAX_VOCABULARY entries."""
    # texts of users don't contain the words of the chat template, but every prompt does
    texts = [*corpus, *["system\nYou are a helpful assistant.", "user\n", "assistant\n"] * 100]
    trained = Qwen2Tokenizer().train_new_from_iterator(
        texts, vocab_size=MAX_VOCABULARY, new_special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    assert isinstance(trained, Qwen2Tokenizer)
    trained.eos_token = "<|im_end|>"
    trained.model_max_length = MAX_POSITIONS
    return trained


def _make_patch_filters(filters: int, colours: int, frames: int, height: int, width: int) -> torch.Tensor:
    """Return initial filters for a patch: its lowest frequencies in brightness and two colour contrasts.

    Random filters respond to little except a patch's brightness, and most of the training would be spent on undoing it.
    """
    mixes = torch.tensor([[1.0, 1.0, 1.0], [1.4, -1.4, 0.0], [0.7, 0.7, -1.4]]) / 3
    waves = sorted(((u, v) for u in range(height) for v in range(width)), key=lambda wave: (sum(wave), wave))
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    made: list[torch.Tensor] = []
    for number in range(filters):
        u, v = waves[number // len(mixes)]
        wave = torch.outer(torch.cos(torch.pi * u * rows / height), torch.cos(torch.pi * v * columns / width))
        # plain brightness is by far the strongest signal and the least informative
        gain = 0.05 if u == v == 0 else 1.0
        made.append(gain * mixes[number % len(mixes)][:colours, None, None] * wave / (0.5 * (height * width) ** 0.5))
    return torch.stack(made)[:, :, None].expand(-1, -1, frames, -1, -1) / frames


def _make_config(tokenizer: Qwen2Tokenizer) -> Qwen2VLConfig:
    """Return the small configuration. The head size is 32: 4 + 6 + 6 pairs of mrope for time, height and width."""
    ids = tokenizer.get_vocab()
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": 128,
            "num_heads": 4,
            "initializer_range": 0.1,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
