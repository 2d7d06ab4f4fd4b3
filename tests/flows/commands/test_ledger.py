import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.commands.ledger import app
from tasks.errors import LedgerError
from tasks.models.ledger.ledger import Ledger
from tests.tasks.questions import keep


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        for number in range(1200):
            keep(ledger, str(number), engine="local/[m]", tokens_in=10)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE answers SET at = at - 10 * 86400 WHERE id <= 200")
    connection.commit()
    connection.close()
    return path


def run_ledger(*arguments: object, columns: int = 200) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": str(columns)}, catch_exceptions=False)


def test_stats_show_counts_tokens_and_size(path: Path) -> None:
    shown = run_ledger("stats", "--ledger", path).output
    for words in ("classify", "local/[m]", "ok", "1,200 answers", "12,000", " MB", "oldest 2", "newest 2"):
        assert words in shown


def test_figures_are_not_cut_on_a_narrow_terminal(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE answers SET tokens_in = 1234567890 WHERE id = 1")
    connection.commit()
    connection.close()
    assert "1,234,579,880" in run_ledger("stats", "--ledger", path, columns=80).output


def test_prune_deletes_only_with_yes(path: Path) -> None:
    output = run_ledger("prune", "--older-than", 5, "--model", "[m]", "--ledger", path).output
    assert "200 answers would be deleted; --yes" in output and "classify" in output
    with Ledger(path) as ledger:
        assert len(ledger) == 1200
    assert "200 answers deleted" in run_ledger("prune", "--older-than", 5, "--yes", "--ledger", path).output
    with Ledger(path) as ledger:
        assert len(ledger) == 1000


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_prune_without_a_condition_is_refused(path: Path, yes: tuple[str, ...]) -> None:
    with pytest.raises(LedgerError, match="say which answers to delete"):
        run_ledger("prune", "--ledger", path, *yes)
    assert run_ledger("prune", "--outcome", "nonsense", "--ledger", path).exit_code == 2


@pytest.mark.parametrize("command", ["stats", "prune --purpose x"])
def test_a_missing_ledger_is_named_and_not_created(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerError, match=r"artifacts/ledger\.sqlite: there is no ledger"):
        run_ledger(*command.split())
    assert list(tmp_path.iterdir()) == []
