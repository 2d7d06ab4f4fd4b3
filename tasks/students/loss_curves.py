"""Read a fold's loss curve for student.json, and draw it as a picture."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.storage.files import write_bytes

Progress = Callable[[int, int, float], None]
"""A function that is called with (steps done, total steps, loss)."""


@dataclass(frozen=True)
class Curve:
    """The logged values, one per logged step, in the order of the steps."""

    steps_logged: tuple[int, ...]
    """Number of each logged update, counted from 1."""
    losses: tuple[float, ...]
    """Mean negative log-probability (nats) of an answer's tokens."""
    learning_rates: tuple[float, ...] = ()
    epochs: tuple[float, ...] = ()
    """Passes over the training items so far, including fractions."""


def read_curve(log_history: Sequence[Mapping[str, Any]]) -> Curve:
    """Return the curve in the log of a transformers trainer, without its summary lines, which have no loss."""
    logged = [entry for entry in log_history if "loss" in entry]
    return Curve(
        steps_logged=tuple(int(entry["step"]) for entry in logged),
        losses=_read_column(logged, "loss"),
        learning_rates=_read_column(logged, "learning_rate"),
        epochs=_read_column(logged, "epoch"),
    )


def draw_curve(curve: Curve, title: str, file: Path) -> None:
    """Draw the curve as a PNG of 800×450 pixels, with steps on the x axis and loss on the y axis."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    # not pyplot, whose figures belong to one thread: folds may be trained in several threads
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # without the dot, a fold of one step would be an empty picture
    axes.plot(curve.steps_logged, curve.losses, marker="." if len(curve.steps_logged) < 100 else "")
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_bytes(file, picture.getvalue())


def _read_column(logged: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(float(f"{float(entry[name]):.6g}") for entry in logged)
