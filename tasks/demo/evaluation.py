"""Compare a demo run with the true labels, which the pipeline itself never reads."""

from collections.abc import Iterable
from pathlib import Path

from tasks.evaluation.test_set import read_truth
from tasks.records import Action, Correction, Prediction
from tasks.storage.rows import read_rows


def compare_with_truth(output: Path, truth_file: Path) -> list[tuple[str, str]]:
    """Return what the run in `output` achieved, as (name, text) pairs for the demo's summary.

    Of the given labels, only those of items that the intake accepted count. Raises FileNotFoundError if a stage has no
    results.
    """
    truth = read_truth(truth_file)
    answers = read_rows(output / "pseudo_labels" / "predictions.parquet", Prediction)
    kept = read_rows(output / "pseudo_labels" / "kept.parquet", Prediction)
    cases = read_rows(output / "correction" / "kept.parquet", Correction)
    planted = {c.sample_id for c in cases if c.given != truth[c.sample_id]}

    def describe_found(suspected: Iterable[Correction]) -> str:
        ids = {c.sample_id for c in suspected}
        hits = len(ids & planted)
        return f"{len(ids)}, precision {hits / max(len(ids), 1):.1%}, recall {hits / max(len(planted), 1):.1%}"

    def count_right(items: Iterable[Correction | Prediction]) -> int:
        return sum(item.label == truth[item.sample_id] for item in items)

    def find_share(items: list[Correction] | list[Prediction]) -> str:
        return f"{count_right(items) / max(len(items), 1):.1%}"

    changed = [c for c in cases if c.action is Action.RELABEL]
    alone = [c for c in changed if not c.reviewed]
    before = (len(cases) - len(planted)) / max(len(cases), 1)
    after = find_share([c for c in cases if c.label is not None])
    differ = describe_found(c for c in cases if c.predicted is not None and c.predicted != c.given)
    adjudicated = describe_found(c for c in cases if c.adjudicated is not None and c.adjudicated != c.given)
    doubted = describe_found(c for c in cases if c.p_given is not None and c.p_given < 0.5)
    return [
        (
            "Compared with the truth",
            f"{len(planted)} labels were made wrong on purpose; right labels: {before:.1%} before, {after} after",
        ),
        (
            "  labels changed",
            f"{count_right(changed)} of {len(changed)} changed to the true label; without review {count_right(alone)} "
            f"of {len(alone)}; {sum(c.reviewed for c in cases)} reviewed by a stand-in that knows the truth",
        ),
        ("  found by students", f"{differ} (predictions that differ from the given label)"),
        ("  found by the teacher", f"{adjudicated} (asked about suspicious labels only)"),
        ("  found by both", f"{doubted} (probably wrong by all evidence)"),
        (
            "  pseudo-labels",
            f"{find_share(kept)} of {len(kept)} kept ones are right; the teacher alone: {find_share(answers)} of "
            f"{len(answers)}",
        ),
    ]
