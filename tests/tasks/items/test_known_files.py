import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tasks.errors import StorageError
from tasks.items.images import MAX_PIXELS, name_recipe
from tasks.items.known_files import GRANULE_NS, KNOWN, KnownFiles, Seen, restore_image
from tasks.items.refusals import Reason, Unusable
from tasks.items.samples import Intake, read_samples
from tasks.media import ImageRef
from tasks.packs.pack import load_pack
from tasks.records import Split
from tests.planted.manifest import write_planted

DEMO = load_pack("demo")
RECIPE = name_recipe(MAX_PIXELS)
LONG_AGO = 1_700_000_000_000_000_000


def age_files(*files: Path) -> None:
    for file in files:
        os.utime(file, ns=(LONG_AGO, LONG_AGO))


def picture(file: Path, colour: int) -> Path:
    """A file of a size that does not depend on its colour."""
    Image.new("RGB", (20, 10), (colour, 0, 0)).save(file, format="BMP")
    return file


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    write_planted(tmp_path)
    age_files(*(file for file in (tmp_path / "images").rglob("*") if file.is_file()))
    return tmp_path


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Path]:
    file = picture(tmp_path / "a.bmp", 1)
    age_files(file)
    yield file


def read_intake(folder: Path, cache: Path | None) -> Intake:
    return read_samples(folder / "manifest.json", folder / "images", DEMO, Split.LABELLED, cache=cache)


def remember_check(file: Path, store: Path, found: ImageRef | Unusable | None = None, recipe: str = RECIPE) -> None:
    """Keep a file as an intake would that found it to be `found`."""
    seen = Seen.of(file)
    with KnownFiles(store, recipe, restore_image) as known:
        known.keep(file, seen, found or ImageRef(path=str(file), sha256="0" * 64, width=20, height=10))


def is_known(file: Path, store: Path, recipe: str = RECIPE) -> bool:
    with KnownFiles(store, recipe, restore_image) as known:
        return file in known.known([file])


def test_an_intake_that_remembers_says_the_same_as_one_that_does_not(planted: Path, tmp_path: Path) -> None:
    store = tmp_path / "cache"
    plain = read_intake(planted, None)
    assert len(plain.kept) == 20 and len(plain.dropped) == 20
    assert read_intake(planted, store) == plain
    assert read_intake(planted, store) == plain


def test_what_is_known_is_not_opened_and_what_is_new_is(planted: Path, tmp_path: Path) -> None:
    store = tmp_path / "cache"
    first = read_intake(planted, store)
    file = Path(first.kept[0].images[0].path)
    data = file.read_bytes()
    file.write_bytes(b"x" * len(data))  # the one change that can't be seen: in place, as long, and back-dated
    age_files(file)
    assert read_intake(planted, store) == first
    file.write_bytes(b"x" * len(data))
    assert {d.reason for d in read_intake(planted, store).dropped if d.sample_id == first.kept[0].id} == {
        "not_an_image"
    }


def test_a_broken_off_intake_keeps_what_it_has_looked_at(planted: Path, tmp_path: Path) -> None:
    cache, manifest = tmp_path / "cache", planted / "manifest.json"

    def stop(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_samples(manifest, planted / "images", DEMO, Split.LABELLED, cache=cache, progress=stop)
    first = Path(read_intake(planted, None).kept[0].images[0].path)
    assert is_known(first, cache / KNOWN)


def test_a_changed_file_is_not_believed(a: Path, tmp_path: Path) -> None:
    store = tmp_path / "known.sqlite"
    remember_check(a, store)
    assert is_known(a, store)
    picture(a, 2)
    assert not is_known(a, store)
    age_files(a)
    assert is_known(a, store)
    os.replace(picture(tmp_path / "b.bmp", 3), a)
    age_files(a)  # as many bytes and the same time of change, but another file
    assert not is_known(a, store)
    a.unlink()
    assert not is_known(a, store)


def test_a_file_that_may_change_within_the_clocks_granule_is_looked_at_again(a: Path, tmp_path: Path) -> None:
    store = tmp_path / "known.sqlite"
    picture(a, 1)
    remember_check(a, store)
    assert not is_known(a, store)
    ahead = Seen.of(a).at_ns + 10 * GRANULE_NS
    os.utime(a, ns=(ahead, ahead))
    remember_check(a, store)
    assert not is_known(a, store)


def test_a_file_that_changes_while_it_is_looked_at_is_not_kept(a: Path, tmp_path: Path) -> None:
    seen = Seen.of(a)
    picture(a, 2)
    with KnownFiles(tmp_path / "known.sqlite", RECIPE, restore_image) as known:
        known.keep(a, seen, ImageRef(path=str(a), sha256="0" * 64, width=20, height=10))
    age_files(a)
    assert not is_known(a, tmp_path / "known.sqlite")


@pytest.mark.parametrize("reason", [Reason.IMAGE_EMPTY, Reason.NOT_AN_IMAGE, Reason.IMAGE_TOO_LARGE])
def test_a_fault_of_the_bytes_is_remembered_with_its_words(a: Path, tmp_path: Path, reason: Reason) -> None:
    remember_check(a, tmp_path / "known.sqlite", Unusable(reason, f"{a}: so it is \udcff"))
    with KnownFiles(tmp_path / "known.sqlite", RECIPE, restore_image) as known:
        found = known.known([a])[a]
    assert isinstance(found, Unusable) and (found.reason, found.detail) == (reason, f"{a}: so it is ?")


@pytest.mark.parametrize("reason", [Reason.IMAGE_MISSING, Reason.IMAGE_TRUNCATED])
def test_a_fault_that_may_be_the_machines_is_not(a: Path, tmp_path: Path, reason: Reason) -> None:
    remember_check(a, tmp_path / "known.sqlite", Unusable(reason, "the disk"))
    assert not is_known(a, tmp_path / "known.sqlite")


def test_another_pixel_limit_may_judge_otherwise(a: Path, tmp_path: Path) -> None:
    remember_check(a, tmp_path / "known.sqlite")
    assert not is_known(a, tmp_path / "known.sqlite", recipe=name_recipe(199))


def test_a_name_that_is_not_utf8_is_known_too(tmp_path: Path) -> None:
    file = picture(tmp_path / os.fsdecode(b"\xff.bmp"), 1)
    age_files(file)
    remember_check(file, tmp_path / "known.sqlite", Unusable(Reason.NOT_AN_IMAGE, "x"))
    assert is_known(file, tmp_path / "known.sqlite")


@pytest.mark.parametrize("damage", [b"no database at all " * 300, b"SQLite format 3\0" + b"\1" * 9000])
def test_a_corrupt_store_is_begun_again(a: Path, tmp_path: Path, damage: bytes) -> None:
    store = tmp_path / "known.sqlite"
    store.write_bytes(damage)
    assert not is_known(a, store)
    remember_check(a, store)
    assert is_known(a, store)


def test_a_store_that_breaks_in_the_middle_is_begun_again(tmp_path: Path) -> None:
    store = tmp_path / "known.sqlite"
    files = [picture(tmp_path / f"{n}.bmp", n) for n in range(200)]
    age_files(*files)
    for file in files:
        remember_check(file, store)
    whole = store.read_bytes()
    store.write_bytes(whole[:4096] + b"\xee" * (len(whole) - 4096))
    with KnownFiles(store, RECIPE, restore_image) as known:
        assert known.known(files) == {}
    remember_check(files[0], store)
    assert is_known(files[0], store)


def test_several_runs_share_a_store(tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{n}.bmp", n) for n in range(40)]
    age_files(*files)
    store = tmp_path / "known.sqlite"
    with KnownFiles(store, RECIPE, restore_image) as one, KnownFiles(store, RECIPE, restore_image) as other:
        for n, file in enumerate(files):
            keeper = one if n % 2 else other
            keeper.keep(file, Seen.of(file), ImageRef(path=str(file), sha256=f"{n:064x}", width=20, height=10))
    with KnownFiles(store, RECIPE, restore_image) as known:
        found = known.known(files)
    assert [found[file].sha256 for file in files] == [f"{n:064x}" for n in range(40)]  # pyright: ignore


def test_a_store_that_cannot_be_made_is_named_with_the_fix(a: Path) -> None:
    with pytest.raises(StorageError, match=r"known\.sqlite: cannot be opened: .*; check the folder"):
        KnownFiles(a / "known.sqlite", RECIPE, restore_image)
