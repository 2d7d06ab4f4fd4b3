# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (matplotlib publishes few types)
"""A fold's loss curve: its numbers for student.json, and its picture beside it."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.storage.files import write_bytes

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""


@dataclass(frozen=True)
class Curve:
    """What was logged, one entry a step, in order of the steps."""

    steps_logged: tuple[int, ...]
    """Updates done, from 1."""
    losses: tuple[float, ...]
    """Mean negative log-probability (nats) of an answer's tokens."""
    learning_rates: tuple[float, ...] = ()
    epochs: tuple[float, ...] = ()
    """Passes over the training part so far, with fraction."""


def read_curve(log_history: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the curve in what a transformers trainer logged; its summary lines, which have no loss, are left out."""
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


def _column(logged: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(float(f"{float(entry[name]):.6g}") for entry in logged)
