"""Settings of the demo."""

from pathlib import Path

from pydantic import Field

from tasks.settings import Settings


class DemoConfig(Settings):
    """Parameters of the flow `demo`."""

    output: Path = Path("artifacts/demo")
    """Folder for the demo's data, models and results."""
    seed: int = 7
    """Random seed for the demo's data."""
    labelled: int = Field(default=400, ge=40)
    """Number of labelled items."""
    unlabelled: int = Field(default=400, ge=40)
    """Number of items in the pool."""
    folds: int = Field(default=4, ge=2)
    """Number of fold students; an even number keeps both cores of a laptop busy."""
    review_budget: int = Field(default=60, ge=0, le=60)
    """Number of items that the simulated reviewer judges."""
    training: float = Field(default=1.0, gt=0, le=1)
    """Share of the usual number of training steps. Lower it to make tests faster."""
