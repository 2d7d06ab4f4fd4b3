"""A tiny model that was trained to point at what it quotes."""

from pathlib import Path

import pytest

from tests.benchmarks.grounded import ask_why, draw_samples, is_right, open_model, point, teach


@pytest.mark.slow
def test_a_trained_model_boxes_the_evidence_on_screens_that_it_has_not_seen(tmp_path: Path) -> None:
    """The training takes 80 CPU seconds. A guess is right once in six times."""
    _, trained = teach(tmp_path)
    samples, buttons = draw_samples(tmp_path, 40)
    engine = open_model(trained, tmp_path)
    reasons = point(engine, [ask_why(sample) for sample in samples])
    engine.close()
    assert sum(is_right(r.boxes, button) for r, button in zip(reasons, buttons, strict=True)) >= 20
