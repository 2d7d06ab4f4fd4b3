"""The readers that read what others wrote, each with the maker of its bad inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.properties.answers import bad_answer
from tests.properties.dialogues import bad_dialogue, bad_prompt, budget
from tests.properties.manifests import bad_manifest
from tests.properties.result import Result
from tests.properties.stored_files import bad_image, bad_ledger, bad_mix, bad_snapshot
from tests.properties.verdict_files import bad_lines, bad_verdicts, bad_version_log


@dataclass(frozen=True)
class Reader:
    """`feed` makes one bad input and gives it to the reader; `share` is its part of all inputs, in percent."""

    name: str
    share: int
    feed: Callable[[Random, Path], Result]


READERS = {
    reader.name: reader
    for reader in (
        Reader("manifests", 36, bad_manifest),
        Reader("images", 6, bad_image),
        Reader("dialogues", 10, lambda rng, _: bad_dialogue(rng)),
        Reader("prompts", 4, lambda rng, folder: bad_prompt(rng, budget(folder))),
        Reader("answers", 14, lambda rng, _: bad_answer(rng)),
        Reader("verdicts", 8, bad_verdicts),
        Reader("lines", 12, bad_lines),
        Reader("versions", 2, bad_version_log),
        Reader("snapshots", 2, bad_snapshot),
        Reader("mixes", 3, bad_mix),
        Reader("ledgers", 3, bad_ledger),
    )
}
