"""Read a checkpoint's tokenizer, chat template and patch size without torch, which transformers would load.

A run that asks servers needs no tensors: importing torch would take it 3 to 12 CPU seconds and 400 MB. The classes here
have those attributes and methods of transformers' processors and tokenizers that asking a server needs, and give the
same results.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

from tasks.models.qwen_vl import close_thoughts, load_processor, read_chat_template, read_qwen_vl
from tasks.prompts.chat_template import ChatTemplate

_TOKENIZER = "tokenizer.json"
_FILES = (_TOKENIZER, "tokenizer_config.json", "chat_template.*", "config.json")
_IMAGE_TOKEN = "<|image_pad|>"
_VIDEO_TOKEN = "<|video_pad|>"


@dataclass(frozen=True)
class LightTokenizer:
    """A fast tokenizer with a chat template."""

    backend_tokenizer: Tokenizer
    template: ChatTemplate

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the ids of the text's tokens under `input_ids`."""
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(
        self, ids: Sequence[int], skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Return the text of the tokens; spaces are never cleaned up."""
        return self.backend_tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def num_special_tokens_to_add(self) -> int:
        """Return how many tokens the tokenizer itself adds to a text."""
        return self.backend_tokenizer.num_special_tokens_to_add(False)

    def apply_chat_template(
        self,
        turns: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
    ) -> str:
        """Return the conversation as text. With `continue_final_message`, it ends with the last turn's own text."""
        return self.template.render(turns, add_generation_prompt, continue_final_message)


@dataclass(frozen=True)
class ImageProcessor:
    """How a model divides images."""

    patch_size: int


@dataclass(frozen=True)
class LightProcessor:
    """The tokenizer of a checkpoint and how it divides images and recordings."""

    tokenizer: LightTokenizer
    image_processor: ImageProcessor
    image_token: str
    video_token: str
    names_times: bool

    def apply_chat_template(self, turns: Sequence[Mapping[str, Any]], **options: bool) -> str:
        """Return the conversation as text; each image and each recording is one token between its frame."""
        return self.tokenizer.apply_chat_template(turns, **options)


def read_processor(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, local_files_only: bool = False
) -> Any:
    """Return the processor of a folder or of a model on the hub: a LightProcessor, or transformers' without fast files.

    Raises OSError or ValueError when there is none, and what `read_qwen_vl` raises.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=list(_FILES), local_files_only=local_files_only)
        )
    if not (folder / _TOKENIZER).is_file():
        # transformers can make a fast tokenizer from older files
        return load_processor(
            name, revision=revision, trust_remote_code=trust_remote_code, local_files_only=local_files_only
        )
    settings = _read(folder / "tokenizer_config.json")
    backend = Tokenizer.from_file(str(folder / _TOKENIZER))
    backend.no_truncation()
    backend.no_padding()
    special = {key: _get_text(value) for key, value in settings.items() if key.endswith("_token") and value}
    template = read_chat_template(folder)
    if not template:
        raise ValueError(f"{folder} has no chat template; add chat_template.jinja")
    tokenizer = LightTokenizer(backend, ChatTemplate(close_thoughts(template), special))
    model = read_qwen_vl(str(folder))
    image_token, video_token = special.get("image_token", _IMAGE_TOKEN), special.get("video_token", _VIDEO_TOKEN)
    return LightProcessor(
        tokenizer, ImageProcessor(model.patch_size), image_token, video_token, model.model_type.startswith("qwen3")
    )


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _get_text(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)
