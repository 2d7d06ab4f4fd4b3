"""Know the generations of Qwen-VL: how each divides images and recordings into tokens, and how its answers begin.

The facts come from the model's own files. Only Qwen's own checkpoints on the hub are known by name, so that exports
and `check` need no network.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from huggingface_hub import snapshot_download

from tasks.errors import EngineError
from tasks.media import BoxForm
from tasks.models.engines.spec import EngineSpec
from tasks.prompts.box_forms import find_box_form

MERGE = 2
"""Patches per side of an image token. It is the same in all generations, and qwen_vl_utils does not know another."""

FRAMES_PER_PATCH = 2
"""Consecutive frames of a recording that share their tokens. It is the same in all generations."""

_PATCH_SIZES = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16, "qwen3_vl_moe": 16}
"""The generations that are known, by the `model_type` in config.json, with the patch size of Qwen's own checkpoints."""
_NAME = re.compile(
    r"Qwen/Qwen(?P<number>2|2\.5|3)-VL-\d+B(?P<experts>-A\d+B)?(?P<kind>-Instruct|-Thinking)?(-AWQ|-FP8|-GPTQ-Int[48])?"
)
_FILES = ("config.json", "chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_OPENED = re.compile(r"(<\|im_start\|>assistant(?:\\n|\n)<think>)(?:\\n|\n)(?=(['\"])\s*-?\}\})")
"""A generation prompt that opens the model's thoughts. In a turn of the history, more text follows."""
_CLOSED = r"\1\\n\\n</think>\\n\\n"
_OPTIONAL = r"\1\\n\2 ~ (\2\\n</think>\\n\\n\2 if enable_thinking is defined and not enable_thinking else \2\2) ~ \2"


@dataclass(frozen=True)
class QwenVL:
    """What has to be known of a checkpoint to ask it, to train it, and to name it to a trainer."""

    model_type: str
    """Its generation, as config.json calls it."""
    patch_size: int
    """Side of an image patch in pixels; `MERGE` by `MERGE` patches make one token."""
    thinks: bool
    """Whether the chat template begins every answer with thoughts."""


def read_qwen_vl(model: str, revision: str | None = None) -> QwenVL:
    """Return the facts about a checkpoint: a local folder, or the name of a model on the hub.

    Raises EngineError, naming the model and the fix, if it cannot be read or is not one of the known generations.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        known = _know_by_name(model)
        return known or _read_folder(_fetch(model, revision), model)
    return _read_folder(folder, model)


def find_served_model(spec: EngineSpec) -> QwenVL | None:
    """Return the facts about the model that `spec` asks; None for a server that gives its model a name of its own.

    Raises what `read_qwen_vl` raises.
    """
    if spec.tokenizer is not None:
        return read_qwen_vl(spec.tokenizer)
    if spec.engine != "server" or Path(spec.model).is_dir():
        return read_qwen_vl(spec.model, spec.revision)
    return _know_by_name(spec.model)


def find_served_form(spec: EngineSpec) -> BoxForm:
    """Return how the model that `spec` asks writes boxes; as Qwen2-VL does if only its server knows which it is.

    Raises what `read_qwen_vl` raises.
    """
    model = None if spec.engine == "scripted" else find_served_model(spec)
    return BoxForm.QWEN2 if model is None else find_box_form(model.model_type)


def find_patch_size(spec: EngineSpec) -> int:
    """Return the patch size at which images for the engine of `spec` are resized.

    A model that only its server knows gets the patches of Qwen2-VL; the engine's notes say so. Raises what
    `read_qwen_vl` raises.
    """
    if spec.engine == "scripted":
        return _PATCH_SIZES["qwen2_vl"]
    model = find_served_model(spec)
    return _PATCH_SIZES["qwen2_vl"] if model is None else model.patch_size


def names_times(processor: Any) -> bool:
    """Return whether the prompts of the processor's model name the times of a recording's frames, as in Qwen3-VL.

    Before the tokens of each pair of frames then comes `write_time`, and they have a frame of their own, as an image.
    Qwen2.5-VL takes times as positions, which cost no tokens, and Qwen2-VL takes none.
    """
    known = getattr(processor, "names_times", None)
    return type(processor).__name__.startswith("Qwen3") if known is None else known


def write_time(seconds: float) -> str:
    """Return the text with which Qwen3-VL's prompts name the time of a pair of frames."""
    return f"<{seconds:.1f} seconds>"


def load_processor(model: str, **options: Any) -> Any:
    """Return transformers' processor of a checkpoint, with which prompts end where the answer begins.

    A thinking model's prompts end with empty thoughts, as its template renders an answer without thoughts. So students
    are trained and asked alike, and labels are weighed where they would be written. `options` go to transformers.
    Raises what transformers raises.
    """
    from transformers import AutoProcessor  # here, because it takes seconds

    processor: Any = AutoProcessor.from_pretrained(model, **options)
    for holder in (processor, processor.tokenizer):
        if isinstance(holder.chat_template, str):
            holder.chat_template = close_thoughts(holder.chat_template)
    return processor


def close_thoughts(template: str) -> str:
    """Return the chat template with empty thoughts at the end of its generation prompt, if that opens thoughts."""
    return _OPENED.sub(_CLOSED, template)


def make_thinking_optional(model: str, revision: str | None = None) -> str | None:
    """Return a thinking model's chat template, changed so that `enable_thinking: false` closes the thoughts.

    Qwen3-VL's own template has no such switch. Returns None for a model that does not think; raises what
    `read_qwen_vl` raises.
    """
    if not read_qwen_vl(model, revision).thinks:
        return None
    folder = Path(model).expanduser()
    template = read_chat_template(folder if folder.is_dir() else _fetch(model, revision))
    return _OPENED.sub(_OPTIONAL, template)


def read_chat_template(folder: Path) -> str:
    """Return the default chat template from the first file that has one, in the order in which transformers looks."""
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text("utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _read_json(folder / name).get("chat_template")
        if isinstance(template, list):  # several, each with a name
            several = {one["name"]: one["template"] for one in template}  # pyright: ignore
            template = several.get("default")
        if isinstance(template, str):
            return template
    return ""


def _know_by_name(model: str) -> QwenVL | None:
    name = _NAME.fullmatch(model)
    if name is None:
        return None
    model_type = f"qwen{name['number'].replace('.', '_')}_vl" + ("_moe" if name["experts"] else "")
    return QwenVL(model_type, _PATCH_SIZES[model_type], name["kind"] == "-Thinking")


def _fetch(model: str, revision: str | None) -> Path:
    """Return a folder with the small files of a model on the hub."""
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:  # of the network, the hub or the name
        raise EngineError(
            f"cannot find out which Qwen-VL {model} is: {str(error).splitlines()[0]}; give the folder of a checkpoint, "
            "the name of one on the Hugging Face hub, or for a server of its own `tokenizer`"
        ) from error


def _read_folder(folder: Path, model: str) -> QwenVL:
    if not (folder / "config.json").is_file():
        raise EngineError(
            f"{model} has no config.json; the folder must contain config, processor, tokenizer and safetensors weights "
            "of a Qwen-VL checkpoint"
        )
    config = _read_json(folder / "config.json")
    model_type = str(config.get("model_type", "none"))
    vision: Mapping[str, Any] = config.get("vision_config") or {}
    if model_type not in _PATCH_SIZES:
        raise EngineError(
            f"{model}: `model_type` in config.json is {model_type}, which is no Qwen-VL that is known here; use a "
            f"checkpoint of one of {', '.join(_PATCH_SIZES)}"
        )
    patch_size = vision.get("patch_size", _PATCH_SIZES[model_type])
    if not isinstance(patch_size, int) or vision.get("spatial_merge_size", MERGE) != MERGE:
        raise EngineError(f"{model}: images can only be divided into square patches, {MERGE} by {MERGE} per token")
    return QwenVL(model_type, patch_size, _OPENED.search(read_chat_template(folder)) is not None)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: Any = orjson.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}  # pyright: ignore[reportUnknownVariableType]
