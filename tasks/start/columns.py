"""Find out which column of a manifest is the id, the text, the image, the recording and the label."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from tasks.errors import ConfigError, ManifestError
from tasks.items.foreign_files import rank_column
from tasks.items.image_names import read_image_names, read_video_names
from tasks.items.raw_items import is_empty
from tasks.items.refusals import Unusable
from tasks.items.samples import read_label
from tasks.start.conversions import Row

Ask = Callable[[str, Sequence[str]], str]
"""A function that asks a person a question with some answers to choose from, and returns the chosen one."""
FLAGS = {"id": "--id", "instruction": "--text", "image": "--image", "video": "--video", "output": "--label"}
"""Maps field to the option of `labelstill init` that names its column."""

LONGEST_LABEL = 200
"""Characters; a longer text is no label."""
_IMAGE_NAME = re.compile(r"(?i).+\.(?:png|jpe?g|webp|gif|bmp|tiff?)|data:image/.*", re.DOTALL)
_VIDEO_NAME = re.compile(r"(?i).+\.(?:mp4|m4v|mov|mkv|webm|avi|ts|mpe?g|flv|wmv|ogv|3gp)")
_FPS = ("fps", "sample_fps")
"""Usual names of the column with the frames per second of recordings that are given as image files."""
_WORDS = re.compile(r"[^\W\d_]{2,}[\s,;:]+[^\W\d_]|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2}")
"""Two words, or two characters of a script without spaces."""
_DATE_WORDS = re.compile(
    r"(?i)\b(?:(?:mon|tue|wed|thu|fri|sat|sun)(?:s|nes|rs|ur)?(?:day)?|jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?"
    r"|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|am|pm|utc|gmt)\b"
)
_OTHER_NAMES = {
    "split",
    "lang",
    "language",
    "source",
    "date",
    "time",
    "annotator",
    "created_at",
    "updated_at",
    "lead_time",
}
"""Names of columns that are neither labels nor texts."""


@dataclass(frozen=True)
class Found:
    """The column of each field, None for a field without one, and remarks for people."""

    id: str | None
    instruction: str | None
    image: str | None
    output: str
    remarks: tuple[str, ...] = ()
    video: str | None = None
    fps: str | None = None


@dataclass
class _Profile:
    """What a column contains."""

    name: str
    filled: int = 0
    texts: int = 0
    letters: int = 0
    images: int = 0
    videos: int = 0
    frames: int = 0
    """Lists of images, of which each may be a recording."""
    worded: int = 0
    fractions: int = 0
    different: set[str] = field(default_factory=set[str])

    def add(self, value: object) -> None:
        self.filled += 1
        if isinstance(value, str):
            self.texts += 1
            self.letters += len(value)
            self.worded += bool(_WORDS.search(_DATE_WORDS.sub("", value[:500])))
        self.fractions += isinstance(value, float) and not value.is_integer()
        self.images += is_image(value)
        self.videos += is_video(value)
        self.frames += is_image(value) and isinstance(value, list)
        self.different.add(str(read_label(value)))

    @property
    def length(self) -> float:
        """Mean number of characters."""
        return self.letters / max(1, self.texts)

    def fits(self, role: str, rank: int, items: int) -> bool:
        """Return whether the content fits the field `role`; `rank` says how well the column's name does."""
        known = rank < 2
        if role == "video":
            return 2 * (self.videos + (self.frames if rank == 0 else 0)) > self.filled
        if role == "image":
            return 2 * self.images > self.filled
        if role == "id":
            return known and self.fractions == 0 and len(self.different) >= 0.9 * self.filled >= 0.8 * items
        if role == "output":
            if known:
                return 2 * (self.images + self.videos) <= self.filled and self.length <= LONGEST_LABEL
            repeated = 1 < len(self.different) <= self.filled / 2 and self.name.casefold() not in _OTHER_NAMES
            return repeated and self.length <= 60 and self.fractions == 0
        if 2 * (self.images + self.videos) > self.filled:
            return False
        return 2 * self.texts > self.filled and (rank == 0 or self._has_sentences())

    def _has_sentences(self) -> bool:
        """Return whether most values have several words, unlike dates and names of files, and few values repeat."""
        varied = len(self.different) > max(1, self.filled / 3) and self.name.casefold() not in _OTHER_NAMES
        return varied and 2 * self.worded > self.filled


def is_image(value: object) -> bool:
    """Return whether a field contains the name of an image file, or a list of such names."""
    try:
        names = read_image_names(value)
    except Unusable:
        return False
    return bool(names) and all(_IMAGE_NAME.fullmatch(name) for name in names)


def is_video(value: object) -> bool:
    """Return whether a field contains the name of a video file, or a list of such names and of lists of images."""
    try:
        names = read_video_names(value)
    except Unusable:
        return False
    nested = isinstance(value, list) and not any(isinstance(entry, str) for entry in cast(list[object], value))
    return bool(names) and all(
        (nested and is_image(list(name))) if isinstance(name, tuple) else _VIDEO_NAME.fullmatch(name) for name in names
    )


def check_header(data: object, rows: Sequence[Row]) -> None:
    """Raise ManifestError if the first row of a table, which names its columns, is an item."""
    names = list(rows[0]) if rows else []
    values = {name: {str(row.get(name)) for row in rows} for name in names}
    repeated = [name for name in names if name in values[name] and all(rank_column(r, name)[0] == 2 for r in FLAGS)]
    if wrong := [name for name in names if is_image(name) or is_video(name)] or repeated:
        raise ManifestError(
            f"{data}: the first row is an item (`{wrong[0]}`) where the columns should be named; "
            "add a first row such as image,label"
        )


def find_columns(rows: Sequence[Row], wanted: Mapping[str, str | None], ask: Ask | None) -> Found:
    """Return the column of each field; `wanted` maps some fields to columns that were named by a person.

    Where several columns fit about equally, `ask` decides; without it the first is taken, and a remark says so. Raises
    ConfigError for a named column that is not there, and ManifestError if there are no labels, or no texts and images.
    """
    profiles: dict[str, _Profile] = {}
    for row in rows:
        for name, value in row.items():
            profile = profiles.setdefault(name, _Profile(name))
            if not is_empty(value):
                profile.add(value)
    profiles = {name: profile for name, profile in profiles.items() if profile.filled}
    there = ", ".join(f"`{name}`" for name in list(profiles)[:20]) or "none"
    chosen = {role: name for role, name in wanted.items() if name is not None}
    for role, name in chosen.items():
        if name not in profiles:
            raise ConfigError(f"{FLAGS[role]}: no column `{name}` with content; there are {there}")
    remarks: list[str] = []
    for role in ("video", "image", "id", "output", "instruction"):
        free = [profile for name, profile in profiles.items() if name not in chosen.values()]
        if role not in chosen and (best := _list_best(role, free, len(rows))):
            chosen[role] = best[0].name
            if len(best) > 1 and ask is not None:
                chosen[role] = ask(f"Which column is the {FLAGS[role][2:]}?", [profile.name for profile in best])
            elif len(best) > 1:
                others = ", ".join(f"`{profile.name}`" for profile in best[1:4])
                remarks.append(
                    f"assumed: {FLAGS[role][2:]} is `{best[0].name}`, not {others}; {FLAGS[role]} changes it"
                )
    if "output" not in chosen:
        raise ManifestError(f"no column has labels; the columns are {there}; name it with --label")
    if not {"image", "video", "instruction"} & chosen.keys():
        fix = "name one with --text, --image or --video"
        raise ManifestError(f"no column has texts, images or recordings; the columns are {there}; {fix}")
    fps = next((name for name in _FPS if "video" in chosen and name in profiles.keys() - chosen.values()), None)
    return Found(
        chosen.get("id"), chosen.get("instruction"), chosen.get("image"), chosen["output"], tuple(remarks),
        chosen.get("video"), fps,
    )  # fmt: skip


def _list_best(role: str, profiles: Sequence[_Profile], items: int) -> list[_Profile]:
    """Return the columns that fit `role` best: those with the field's own name, else with a part of it, else any."""
    ranked: dict[int, list[_Profile]] = {}
    for profile in profiles:
        rank = rank_column(role, profile.name)[0]
        if profile.fits(role, rank, items):
            ranked.setdefault(rank, []).append(profile)
    if not ranked:
        return []
    best = sorted(ranked[min(ranked)], key=lambda profile: rank_column(role, profile.name))
    if role == "instruction":
        longest = max(best, key=lambda profile: profile.length)
        return sorted(
            (profile for profile in best if 2 * profile.length >= longest.length),
            key=lambda profile: -profile.length,
        )
    if role == "output":  # several labels rather than one, and names rather than numbers
        best = [profile for profile in best if len(profile.different) > 1] or best
        return [profile for profile in best if 2 * profile.texts >= profile.filled] or best
    return best
