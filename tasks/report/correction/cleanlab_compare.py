# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# (cleanlab need not be there; scikit-learn publishes no types)
"""What cleanlab says about the same probabilities, where it is installed; no requirement of ours.

Source: Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from tasks.correction.decide import Decisions


@dataclass(frozen=True)
class Filter:
    """One of its filters: the items it flags, those we flag, and those both do; items with a verdict left out."""

    name: str
    flagged: int
    ours: int
    both: int


@dataclass(frozen=True)
class Comparison:
    """cleanlab beside ours; without `filters` it could not judge the items, and `failure` says why."""

    filters: tuple[Filter, ...]
    average_precision: dict[str, float]
    """Of each ranking, on the audited verdicts; empty where these are all of one kind."""
    audited: int
    failure: str = ""


def compare(decisions: Decisions, unheard: Mapping[int, float]) -> Comparison | None:
    """cleanlab's flags and rankings from the students' mean probabilities; None where cleanlab is not installed.

    `unheard` is P(wrong) of each item with a verdict by a model that did not know it: our ranking on these.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    judgements = decisions.judgements
    given, told = judgements.given, judgements.students.astype(np.float64)
    open_items = np.ones(len(given), dtype=bool)
    open_items[list(decisions.verdicts)] = False
    audited = [i for i in decisions.person_asked[: decisions.audited].tolist() if i in decisions.verdicts]
    try:
        filters = tuple(
            _filter(name, np.asarray(find_label_issues(given, told, filter_by=rule, n_jobs=1)), decisions, open_items)
            for name, rule in (("default", "prune_by_noise_rate"), ("prune_by_class", "prune_by_class"))
        )
        scores = {
            name: 1 - np.asarray(get_label_quality_scores(given, told, method=method))[audited]
            for name, method in (
                ("cleanlab, self-confidence", "self_confidence"),
                ("cleanlab, normalized margin", "normalized_margin"),
            )
        }
    except ValueError as error:  # too few classes, or classes without an item
        return Comparison((), {}, len(audited), str(error))
    ours = {"ours, without the verdict": np.array([unheard[i] for i in audited])}
    wrong = np.array([decisions.verdicts[i] != given[i] for i in audited], dtype=bool)
    precision = dict[str, float]()
    if wrong.any() and not wrong.all():
        precision = {name: float(average_precision_score(wrong, by)) for name, by in (ours | scores).items()}
    return Comparison(filters, precision, len(audited))


def _filter(name: str, issues: NDArray[np.bool_], decisions: Decisions, among: NDArray[np.bool_]) -> Filter:
    theirs, ours = issues & among, decisions.flagged & among
    return Filter(name, int(theirs.sum()), int(ours.sum()), int((theirs & ours).sum()))
