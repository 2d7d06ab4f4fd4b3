"""No answer is paid for twice: changed rules ask nothing, and a changed template asks only about its own items."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.config import DistillConfig, PseudoLabelsConfig
from tasks.models.ledger.tools import Choice, prune
from tasks.packs.pack import TEMPLATES
from tasks.records import Sample
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import StageRecord
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config


@dataclass(frozen=True)
class Pool:
    """A pool of 60 items and a pack of its own to label it with."""

    config: DistillConfig
    pack: Path

    def label(self, **settings: Any) -> StageRecord:
        """Run the stage with changed settings."""
        from flows.pseudo_labels import pseudo_labels

        whole = self.config
        assert whole.unlabelled and whole.teacher
        return pseudo_labels(
            PseudoLabelsConfig(
                pack=str(self.pack),
                output=whole.output,
                ledger=whole.ledger,
                images=whole.images,
                texts=whole.texts,
                unlabelled=whole.unlabelled,
                teacher=whole.teacher,
                pseudo_labels=whole.pseudo_labels.model_copy(update=settings),
            )
        )

    def image_items(self) -> int:
        """How many of the pool's items are of the task `image`."""
        samples = read_rows(self.config.output / "samples" / "unlabelled" / "kept.parquet", Sample)
        return sum(s.task == "image" for s in samples)


@pytest.fixture(scope="module")
def pool(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("reuse")
    return Pool(small_config(folder), shutil.copytree(TEMPLATES / "demo", folder / "pack"))


def test_changed_parser_and_gate_ask_nothing_and_a_template_only_its_items(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pool.label()
    assert (first.read, first.costs.asked, first.costs.reused) == (60, 60, 0)

    # a parser rule: the code's version changes with it, so the stage decides again
    import flows.stage as stage
    import tasks.models.ask as asking
    from tasks.prompts.parsing import parse

    def shorter(*args: Any, **names: Any) -> Any:
        found = parse(*args, **names)
        return found.model_copy(update={"reason": found.reason[:4]})

    monkeypatch.setattr(asking, "parse", shorter)
    monkeypatch.setattr(stage, "code_version", lambda: "another")
    parsed = pool.label()
    assert parsed.recipe != first.recipe
    assert (parsed.costs.asked, parsed.costs.reused) == (0, 60)
    monkeypatch.undo()

    gated = pool.label(target_precision=0.5)
    assert gated.recipe != first.recipe
    assert (gated.costs.asked, gated.costs.reused) == (0, 60)

    template = pool.pack / "classify.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("你是网店识图助手，看图选标签", "你是识图助手，看图选标签"), encoding="utf-8")
    worded = pool.label()
    touched = pool.image_items()
    assert 0 < touched < 60
    assert (worded.costs.asked, worded.costs.reused) == (touched, 60 - touched)


def test_pruned_answers_are_asked_again_and_the_result_is_then_reused(pool: Pool) -> None:
    before = pool.label()
    prune(pool.config.ledger, Choice(model="scripted", purpose="rationale"))
    assert pool.label() == before
    deleted, _ = prune(pool.config.ledger, Choice(model="scripted", before=time.time() + 1))
    again = pool.label()
    assert (again.recipe, again.costs.asked) == (before.recipe, 60) and deleted >= 60
    assert again.digest != before.digest
    assert pool.label() == again
