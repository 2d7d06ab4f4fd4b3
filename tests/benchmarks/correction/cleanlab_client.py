"""cleanlab's flags and rankings; runs in .peers/cleanlab: `cleanlab_client.py FOLDER`.

Each `*.in.npz` there has `given` [N] and `probabilities` [N, C]; its answer goes beside it as `*.out.npz`.
"""

import sys
from pathlib import Path

import numpy as np
from cleanlab.dataset import find_overlapping_classes  # pyright: ignore[reportMissingImports]
from cleanlab.filter import find_label_issues  # pyright: ignore[reportMissingImports]
from cleanlab.rank import get_label_quality_scores  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Both filters' flags, two rankings (higher: more likely wrong), all [N], and the overlapping pairs in order."""
    for path in sorted(Path(sys.argv[1]).glob("*.in.npz")):
        with np.load(path, allow_pickle=False) as stored:
            given, probabilities = stored["given"], stored["probabilities"]
        overlaps = find_overlapping_classes(labels=given, pred_probs=probabilities)
        found = {
            "default": find_label_issues(given, probabilities, n_jobs=1),
            "by_class": find_label_issues(given, probabilities, filter_by="prune_by_class", n_jobs=1),
            "self_confidence": -get_label_quality_scores(given, probabilities, method="self_confidence"),
            "normalized_margin": -get_label_quality_scores(given, probabilities, method="normalized_margin"),
            "overlaps": overlaps[["Class Index A", "Class Index B"]].to_numpy(),
        }
        np.savez(path.with_name(path.name.replace(".in.", ".out.")), **found)


if __name__ == "__main__":
    main()
