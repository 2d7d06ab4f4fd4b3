"""The exports read back through the readers themselves: `make bench-readers` in small."""

from pathlib import Path

import pytest

from tasks.dataset.settings import Format
from tests.benchmarks.readers.items import SHAPES
from tests.benchmarks.readers.lessons import PAIR_READERS, SOFT_READERS, measure
from tests.benchmarks.readers.main import READERS, Reader, Set, read_back

COUNT = 2 * len(SHAPES)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Set:
    return Set(tmp_path_factory.mktemp("set"), COUNT, image_paths="copy")


# ms-swift looks for the files of `<img>` tags from where it is started: with relative names, from the export's folder
RELATIVE = [reader for reader in READERS if reader.format is not Format.SWIFT2]


@pytest.mark.slow
@pytest.mark.parametrize("reader", RELATIVE, ids=lambda reader: reader.title)
def test_every_row_is_read_back_as_our_own_prompt(reader: Reader, drawn: Set, tmp_path: Path) -> None:
    result = read_back(drawn, reader, tmp_path)
    assert (result.rows, result.images, result.texts) == (COUNT, COUNT, COUNT)
    assert (result.frames, result.boxes) == ((drawn.recordings, drawn.recordings), drawn.boxes)
    assert result.trained in (None, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS[:2], ids=lambda reader: reader.title)
def test_a_set_without_images_can_be_read(reader: Reader, tmp_path: Path) -> None:
    few = 4
    result = read_back(Set(tmp_path / "set", few, shapes=["text only"]), reader, tmp_path)
    assert (result.rows, result.texts, result.trained) == (few, few, few)


@pytest.mark.slow
@pytest.mark.parametrize("reader", (*PAIR_READERS, *SOFT_READERS), ids=lambda reader: reader.title)
def test_pairs_and_soft_labels_are_read_back_and_a_student_learns_from_them(reader: Reader, tmp_path: Path) -> None:
    assert measure([reader], 20, tmp_path)
