import sqlite3
from pathlib import Path

import pytest

from tasks.errors import StorageError
from tasks.storage.digest_cache import DigestCache


@pytest.mark.parametrize("file", ["cache.sqlite", None])
def test_values_are_kept_by_key(tmp_path: Path, file: str | None) -> None:
    cache = DigestCache(tmp_path / "new" / file if file else None, "1")
    cache.put({"a": "text", b"a": b"bytes", "least": -(1 << 63)})
    cache.put({"a": "later"})
    assert cache.get(["a", b"a", "least", "b"]) == {"a": "later", b"a": b"bytes", "least": -(1 << 63)}


def test_another_recipe_knows_nothing(tmp_path: Path) -> None:
    DigestCache(tmp_path / "cache.sqlite", "1").put({"a": 1})
    assert DigestCache(tmp_path / "cache.sqlite", "2").get(["a"]) == {}
    assert DigestCache(tmp_path / "cache.sqlite", "1").get(["a"]) == {"a": 1}


def test_a_corrupt_file_is_begun_again(tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite"
    file.write_bytes(b"no database at all " * 300)
    cache = DigestCache(file, "1")
    cache.put({"a": 1})
    assert cache.get(["a"]) == {"a": 1}
    file.write_bytes(b"overwritten while in use " * 300)
    assert cache.get(["a"]) == {}
    cache.put({"a": 2})
    assert cache.get(["a"]) == {"a": 2}


def test_a_locked_file_stops_nobody_and_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tasks.storage.digest_cache._LOCK_SECONDS", 0.1)
    cache = DigestCache(tmp_path / "cache.sqlite", "1")
    with sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        cache.put({"a": 1})
        cache.put({"b": 1})
        other.execute("ROLLBACK")
    assert cache.get(["a", "b"]) == {}
    (warning,) = caplog.messages
    assert f"{tmp_path / 'cache.sqlite'} cannot be written (database is locked)" in warning


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StorageError, match=r"taken/cache\.sqlite: can't be opened"):
        DigestCache(tmp_path / "taken" / "cache.sqlite", "1")
