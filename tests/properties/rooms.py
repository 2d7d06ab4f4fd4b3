"""The rooms that read what others wrote, each with the maker of its bad inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.properties.answers import bad_answer
from tests.properties.dialogues import bad_dialogue, bad_prompt, budget
from tests.properties.manifests import bad_manifest
from tests.properties.stored_files import bad_image, bad_ledger, bad_mix, bad_snapshot
from tests.properties.told import Told
from tests.properties.verdict_files import bad_lines, bad_verdicts, bad_version_log


@dataclass(frozen=True)
class Room:
    """`enter` makes one bad input and puts it in; `share` is its part of all inputs, in percent."""

    name: str
    share: int
    enter: Callable[[Random, Path], Told]


ROOMS = {
    room.name: room
    for room in (
        Room("manifests", 36, bad_manifest),
        Room("images", 6, bad_image),
        Room("dialogues", 10, lambda rng, _: bad_dialogue(rng)),
        Room("prompts", 4, lambda rng, folder: bad_prompt(rng, budget(folder))),
        Room("answers", 14, lambda rng, _: bad_answer(rng)),
        Room("verdicts", 8, bad_verdicts),
        Room("lines", 12, bad_lines),
        Room("versions", 2, bad_version_log),
        Room("snapshots", 2, bad_snapshot),
        Room("mixes", 3, bad_mix),
        Room("ledgers", 3, bad_ledger),
    )
}
