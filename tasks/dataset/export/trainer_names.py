"""Name the generations of Qwen-VL as the trainers do. Each name was read in the trainer's own sources.

LLaMA-Factory 0.9.5: llamafactory/data/template.py, llamafactory/extras/constants.py.
ms-swift 4.6.0: swift/model/models/qwen.py, swift/template/templates/qwen.py.
"""

from tasks.dataset.export.trainer_files import Plain
from tasks.dataset.settings import ExportSpec, Format
from tasks.errors import ConfigError
from tasks.models.qwen_vl import QwenVL, read_qwen_vl

EMPTY_THOUGHTS = "<think>\n\n</think>\n\n"
"""What a thinking model's template writes before an answer without thoughts."""

_LLAMAFACTORY = {
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_vl",
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
}
_SWIFT = {"qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_5_vl", "qwen3_vl": "qwen3_vl", "qwen3_vl_moe": "qwen3_vl"}


def check_base(spec: ExportSpec) -> None:
    """Raise ConfigError or EngineError if a trainer whose configurations are to be written does not know the base."""
    for trainer in (Format.LLAMAFACTORY, Format.SWIFT):
        if any(format == trainer or format.startswith(f"{trainer}_") for format in spec.formats):
            name_for_trainer(trainer, spec.base, read_qwen_vl(spec.base, spec.revision))


def name_for_trainer(trainer: str, base: str, model: QwenVL) -> dict[str, Plain]:
    """Return the words `template` and `model_type` for configurations of `trainer` (`llamafactory` or `swift`).

    Raises ConfigError, naming `base`, if the trainer has no name for this generation.
    """
    names = _LLAMAFACTORY if trainer == "llamafactory" else _SWIFT
    template = names.get(model.model_type)
    if template is None or (model.thinks and not template.startswith("qwen3")):
        kind = f"{model.model_type} that thinks" if model.thinks else model.model_type
        raise ConfigError(f"{base}: {trainer} has no template for a {kind}; use another base, or leave {trainer} out")
    if trainer == "llamafactory" and template == "qwen3_vl" and not model.thinks:
        template = "qwen3_vl_nothink"
    return {"template": template, "model_type": model.model_type}
