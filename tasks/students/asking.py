"""Choose the engine that runs a trained student, and make the requests for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.installation import find_vllm
from tasks.models.qwen_vl import read_qwen_vl
from tasks.packs.pack import Pack
from tasks.prompts.box_forms import BoxForm, find_box_form
from tasks.prompts.prompter import Prompter
from tasks.records import Request, Sample, Sampling
from tasks.students.external_output import find_student_checkpoint
from tasks.students.settings import CheckpointSettings, ExternalSpec

_LABEL_TOKENS = 8
_REASON_TOKENS = 96


def choose_base_engine(spec: CheckpointSettings) -> EngineSpec:
    """Return the engine for the base checkpoint of `spec`, without a student's weights."""
    engine = _choose_fast_engine() if spec.scoring.engine == "auto" else spec.scoring.engine
    # students learn to answer without thoughts; the local engine never opens them
    thinks = engine == "vllm" and read_qwen_vl(spec.base, spec.revision).thinks
    return EngineSpec(
        **spec.scoring.model_dump(exclude={"engine"}),
        engine=engine,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}} if thinks else {},
        model=spec.base,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        min_pixels=spec.min_pixels,
        max_pixels=spec.max_pixels,
    )


def choose_student_engine(spec: CheckpointSettings, folder: Path, folders: Sequence[Path]) -> EngineSpec:
    """Return the engine for the student in `folder`: the base with its adapter, or the student's full weights.

    `folders` are the folders of all students that are asked one after another; one vLLM server serves all adapters.
    """
    base = choose_base_engine(spec)
    path, is_adapter = _checkpoint(spec, folder)
    if not is_adapter:
        return base.model_copy(update={"model": str(path), "revision": None})
    served = tuple(str(_checkpoint(spec, f)[0]) for f in folders) if base.engine == "vllm" else ()
    return base.model_copy(update={"adapter": str(path), "adapters": served})


def choose_box_form(spec: CheckpointSettings, pack: Pack) -> BoxForm | None:
    """Return the form of the boxes in a student's reasons; None if the pack has none there."""
    return find_box_form(read_qwen_vl(spec.base, spec.revision).model_type) if pack.boxes else None


def make_label_requests(prompter: Prompter, items: Sequence[Sample], *, with_reason: bool) -> list[Request]:
    """Return one request per item for its label, alone or after a reason."""
    sampling = Sampling(label_probabilities=True, max_tokens=_REASON_TOKENS if with_reason else _LABEL_TOKENS)
    return [prompter.classify(item, sampling, with_reason=with_reason) for item in items]


def _choose_fast_engine() -> Literal["vllm", "local"]:
    vllm = find_vllm()
    return "local" if vllm is None or vllm.cpu else "vllm"  # starting vLLM on a CPU takes a minute


def _checkpoint(spec: CheckpointSettings, folder: Path) -> tuple[Path, bool]:
    return find_student_checkpoint(folder) if isinstance(spec, ExternalSpec) else (folder, True)
