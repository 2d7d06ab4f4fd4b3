"""Never a crash, never a silent loss: bad inputs made by hypothesis, given to each reader of what others wrote.

`python tests/benchmarks/bad_inputs.py` makes ten thousand of them.
"""

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.properties.readers import READERS, Reader

EXAMPLES = {"answers": 200, "dialogues": 200, "manifests": 100, "ledgers": 20, "prompts": 30}
"""Of the others 50, as they write files and wait for the disk."""

randoms = st.randoms(use_true_random=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_nothing_bad_is_lost_or_ends_a_run(reader: Reader, folder: Path) -> None:
    @settings(
        max_examples=EXAMPLES.get(reader.name, 50),
        suppress_health_check=list(HealthCheck),
    )
    @given(randoms)
    def holds(rng: Random) -> None:
        result = reader.feed(rng, folder)
        assert not result.lost and result.reasons

    holds()


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
def test_each_reader_meets_good_and_bad(reader: Reader, folder: Path) -> None:
    """A generator whose inputs all end alike would show nothing."""
    found: set[str] = set()
    for seed in range(300):
        found.update(reader.feed(Random(seed), folder).reasons)
        if len(found) > 1:
            return
    raise AssertionError(f"all end as {found}")
