"""Choose the reasons to train on: a share of those that the stages kept, without any that is too similar to another."""

from collections.abc import Mapping

from tasks.dataset.decisions import Decision
from tasks.dataset.settings import EmitSettings
from tasks.rationales.diversity import MarkedReason, find_crowded_out
from tasks.rationales.settings import RationaleSettings
from tasks.records import Correction, Prediction, Split, digest_of

ItemKey = tuple[Split, str]
"""The set and id of an item. The id alone is not unique, because the manifests of both sets may count from 1."""


def find_unused_reasons(
    corrections: Mapping[str, Correction],
    pseudo: Mapping[str, Decision],
    reasons: Mapping[str, Prediction],
    settings: EmitSettings,
    rationales: RationaleSettings,
    seed: int,
) -> tuple[set[ItemKey], int]:
    """Return the items whose reason is left out of training, and how many reasons are too similar to another one.

    The other reasons are left out at random, so that a share of `reason_share` remains. Each item is drawn on its own,
    whatever else is merged.
    """
    found = {(Split.LABELLED, i): MarkedReason(p.reason, p.label or "") for i, p in reasons.items() if p.reason}
    for i, c in corrections.items():
        if c.label is not None and c.label != c.given:
            found.pop((Split.LABELLED, i), None)
            if c.reason and c.has_label_of_teacher:
                found[Split.LABELLED, i] = MarkedReason(c.reason, c.label)
    found |= {(Split.UNLABELLED, i): MarkedReason(d.reason, d.label or "") for i, d in pseudo.items() if d.reason}
    drawn = {key: one for key, one in found.items() if _draw_number(seed, key[1]) < settings.reason_share}
    alike = find_crowded_out(drawn, rationales)
    return alike | (found.keys() - drawn.keys()), len(alike)


def _draw_number(seed: int, sample_id: str) -> float:
    """Return a random number from 0 to 1 that depends only on the seed and the item."""
    return int(digest_of(["reason", seed, sample_id])[:8], 16) / 2**32
