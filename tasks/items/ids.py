"""Name items, and choose between items with the same id."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tasks.items.image_names import read_image_names, read_video_names
from tasks.items.raw_items import RawItem, is_utf8
from tasks.items.refusals import Reason, Unusable, drop_item
from tasks.packs.columns import Columns
from tasks.records import Dropped, Sample, content_digest

_SPREADSHEET_NUMBER = re.compile(r"-?\d(?:\.\d+)?[eE]\+\d+")
_EXACT = 2**53
"""From this number on, floating-point numbers do not distinguish all whole numbers."""


def find_own_id(item: RawItem, columns: Columns) -> str | None:
    """Return the item's id as text, or the names of its media if the manifest has no ids; None if neither is usable."""
    fields = item.fields or {}
    if columns.id is not None:
        value = fields.get(columns.id)
    else:
        try:
            named = read_image_names(fields.get(columns.image or ""))
            for name in read_video_names(fields.get(columns.video or "")):
                named += [name] if isinstance(name, str) else name
            value = ",".join(named)
        except Unusable:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value)
    return text if text.strip() and is_utf8(text) else None


def check_digits(value: object) -> None:
    """Raise Unusable if an id is a number whose last digits may have been rounded."""
    rounded = isinstance(value, float) and abs(value) >= _EXACT
    if rounded or (isinstance(value, str) and _SPREADSHEET_NUMBER.fullmatch(value.strip())):
        detail = f"the id {value} is a rounded number, so other items may have the same; store ids as text"
        raise Unusable(Reason.ROUNDED_ID, detail)


def settle_ids(results: Sequence[Sample | Dropped], places: Sequence[str]) -> list[Sample | Dropped]:
    """Drop all but the first sample of each id, or all of them if the same content has different labels.

    `places` says where each item is. Different texts of a free-text task do not contradict each other.
    """
    same_id: defaultdict[str, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        if isinstance(result, Sample):
            same_id[result.id].append(i)
    settled = list(results)
    for identity, rows in same_id.items():
        samples = {i: result for i in rows if isinstance(result := results[i], Sample)}
        first = rows[0]
        rival = _find_rival(samples) if len(rows) > 1 else None
        for i in rows[1:] if rival is None else rows:
            why = Unusable(Reason.DUPLICATE_ID, f"id `{identity}` is already used by {places[first]}")
            if rival is not None:
                one, other = (f"`{samples[k].given}` in {places[k]}" for k in (first, rival))
                detail = f"id `{identity}` has the label {one} but {other}; keep the right one"
                why = Unusable(Reason.CONFLICTING_LABELS, detail)
            settled[i] = drop_item(identity, samples[i].source, places[i], why)
    return settled


def _find_rival(samples: Mapping[int, Sample]) -> int | None:
    """Return the first of the samples with one id whose label contradicts that of an earlier one with equal content."""
    labels: dict[str, str] = {}
    for i, sample in samples.items():
        given = sample.given if sample.labels else None
        if given is not None and labels.setdefault(content_digest(sample), given) != given:
            return i
    return None
