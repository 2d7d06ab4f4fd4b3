"""Explain that a package is missing which runs or trains models: `make env-light` leaves these out."""

from importlib.util import find_spec

from tasks.errors import MissingPackage

MODEL_PACKAGES = (
    "torch", "torchvision", "transformers", "trl", "peft", "accelerate", "tokenizers", "datasets", "uvloop",
    "pybase64",
)  # fmt: skip
"""The packages that base.in adds to light.in, or their needs, under the names by which they are imported."""


def require_model_packages(user: str, target: str = "env-base") -> None:
    """Raise MissingPackage if a package that runs models is not installed.

    `user` is what needs the packages, and `target` the Makefile's target that installs them.
    """
    missing = next((name for name in MODEL_PACKAGES if find_spec(name) is None), None)
    if missing is not None:
        raise _make_error(user, missing, target)


def explain_missing_package(error: ModuleNotFoundError) -> MissingPackage | None:
    """Return the error to show instead of `error`, or None if the package belongs to every environment."""
    name = (error.name or "").partition(".")[0]
    return _make_error("this command", name, "env-base") if name in MODEL_PACKAGES else None


def _make_error(user: str, package: str, target: str) -> MissingPackage:
    return MissingPackage(
        f"{user} needs {package}, which this environment lacks; run `make {target}` and then the same command again"
    )
