import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import TooManyFailures
from tasks.models.ask import Asker
from tasks.models.engines.scripted import ScriptedEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.failures import FailureLimit
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings
from tasks.models.teacher import label_with_teacher
from tasks.packs.pack import TEMPLATES, load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Generation, Outcome, Prediction, Request
from tests.tasks.making import prompter, sample

SPEC = EngineSpec(engine="scripted", model="scripted:hash")


class Recording(Asker):
    """Records the requests that it is asked."""

    asked: tuple[Request, ...] = ()

    def ask(self, requests: Any, spec: EngineSpec, what: str) -> dict[str, Generation]:
        self.asked += tuple(requests)
        return super().ask(requests, spec, what)

    def ask_for_labels(self, requests: Any, *arguments: Any, **names: Any) -> list[Prediction]:
        self.asked += tuple(requests)
        return super().ask_for_labels(requests, *arguments, **names)


@pytest.mark.parametrize("given", ["申请退款", None])
def test_a_teacher_labels_by_votes_without_the_given_label(tmp_path: Path, given: str | None) -> None:
    prompts, settings = prompter(), AskSettings(votes=2)
    samples = [sample(f"s{n}", given=given) for n in range(3)]
    with Ledger(tmp_path / "ledger.sqlite") as ledger, Recording(ledger, ScriptedEngine) as asker:
        found = label_with_teacher(asker, prompts, samples, SPEC, settings, 5, "labels")
    assert [p.sample_id for p in found] == ["s0", "s1", "s2"]
    assert {(p.source, p.model, sum(p.votes.values())) for p in found} == {("teacher", "m", 2)}
    blind = [prompts.classify(sample(f"s{n}", given=None), settings.sample_votes(5)) for n in range(3)]
    assert [r.key for r in asker.asked] == [r.key for r in blind]


class CutOff(ScriptedEngine):
    """Cuts off every answer."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        for answer in super().generate(requests):
            yield answer.model_copy(update={"outcome": Outcome.TRUNCATED})


def test_descriptions_that_fail_in_bulk_are_an_error(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TEMPLATES / "demo", tmp_path / "pack"))
    (folder / "describe.jinja").write_text(
        "{% block prefix %}看{% endblock %}{% block suffix %}{% endblock %}", "utf-8"
    )
    pack = load_pack(folder).model_copy(update={"describe_first": True})
    prompts = Prompter(pack, "m", max_pixels=10**6, min_pixels=3136)
    limit = FailureLimit("pseudo_labels", 0.1)
    with Ledger(tmp_path / "ledger.sqlite") as ledger, Asker(ledger, CutOff, limit=limit) as asker:
        message = r"pseudo_labels: 6 of 6 questions failed \(teacher describes items\).*truncated, 6 times"
        with pytest.raises(TooManyFailures, match=message):
            label_with_teacher(asker, prompts, [sample(f"s{n}") for n in range(6)], SPEC, AskSettings(), 5, "labels")
