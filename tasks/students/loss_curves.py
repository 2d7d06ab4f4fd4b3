# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (matplotlib and transformers publish few types)
"""A fold's loss curve: its numbers for student.json, its picture beside it, and who else is told."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from tasks.errors import ConfigError
from tasks.storage.stages import write_bytes

_PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit", "kubeflow": "kubeflow-training"}
"""Of transformers' reporters, where their package has another name."""


@dataclass(frozen=True)
class Curve:
    """What was logged, one entry a step, in order of the steps."""

    steps_logged: tuple[int, ...]
    """Updates done, from 1."""
    losses: tuple[float, ...]
    """Mean negative log-probability (nats) of an answer's tokens."""
    learning_rates: tuple[float, ...]
    epochs: tuple[float, ...]
    """Passes over the training part so far, with fraction."""


def curve_of(log_history: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve in what a transformers trainer logged; its summary lines, which have no loss, are left out."""
    logged = [entry for entry in log_history if "loss" in entry]
    return Curve(
        steps_logged=tuple(int(entry["step"]) for entry in logged),
        losses=_column(logged, "loss"),
        learning_rates=_column(logged, "learning_rate"),
        epochs=_column(logged, "epoch"),
    )


def draw_curve(curve: Curve, title: str, file: Path) -> None:
    """Write the curve to `file` as a PNG of 800×450: steps across, loss upwards."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    # not pyplot: its figures belong to one thread, and folds may be trained in several
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # a fold of one step would be an empty picture without its dot
    axes.plot(curve.steps_logged, curve.losses, marker="." if len(curve.steps_logged) < 100 else "")
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_bytes(file, picture.getvalue())


def check_reporters(names: Sequence[str]) -> None:
    """Raise ConfigError unless transformers knows each name and its package is installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"student.report_to: `{name}` is not one of {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            package = _PACKAGES.get(name, name)
            raise ConfigError(
                f"student.report_to: `{name}` needs its package: run `pip install {package}`, or leave it out ({error})"
            ) from error


def _column(logged: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(float(f"{float(entry[name]):.6g}") for entry in logged)
