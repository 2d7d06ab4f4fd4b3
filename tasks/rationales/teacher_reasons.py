"""Remove the bad reasons that teachers gave together with their labels.

They are not asked for again: asked again, a teacher could choose another label. So the label stays, without a reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.models.ask import Asker
from tasks.packs.pack import Pack
from tasks.rationales.gate import LabelledReason, judge_text_and_boxes
from tasks.rationales.grounding import FindLines
from tasks.rationales.judge import Judge
from tasks.rationales.words import BadReason
from tasks.records import Prediction, Sample


def remove_bad_reasons(
    predictions: Sequence[Prediction],
    samples: Mapping[str, Sample],
    pack: Pack,
    find_lines: FindLines | None = None,
    judge: Judge | None = None,
    asker: Asker | None = None,
) -> tuple[list[Prediction], Counter[str]]:
    """Remove bad reasons and their boxes; return all predictions, and the number of removed reasons per fault.

    `find_lines` is as in `judge_text_and_boxes`. `judge` is asked through `asker` about the reasons without another
    fault. Raises what `asker` raises.
    """
    faults: dict[str, BadReason] = {}
    sound: list[LabelledReason] = []
    for prediction in predictions:
        if not prediction.reason or prediction.label is None:
            continue
        one = LabelledReason(samples[prediction.sample_id], prediction.label, prediction.reason, prediction.boxes)
        if (bad := judge_text_and_boxes(one, pack, find_lines)) is None:
            sound.append(one)
        else:
            faults[prediction.sample_id] = bad
    if judge is not None and asker is not None and sound:
        refused = judge.find_refused(asker, sound, "reasons of teachers", first=False)
        faults |= {sample_id: refusal.fault for sample_id, refusal in refused.items()}
    checked = [_remove_reason(p) if p.sample_id in faults else p for p in predictions]
    return checked, Counter(str(fault) for fault in faults.values())


def _remove_reason(prediction: Prediction) -> Prediction:
    """Return the prediction without its reason, also among the votes, from which pairs are made."""
    votes = tuple(vote for vote in prediction.answers if vote.reason != prediction.reason)
    return prediction.model_copy(update={"reason": "", "boxes": (), "answers": votes})
