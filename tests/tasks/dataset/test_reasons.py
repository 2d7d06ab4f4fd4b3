from tasks.dataset.decisions import Decision
from tasks.dataset.reasons import find_unused_reasons
from tasks.dataset.settings import EmitSettings
from tasks.rationales.settings import RationaleSettings
from tasks.records import Action, Origin, Split
from tests.tasks.making import correction, prediction

RATIONALES = RationaleSettings(opening_share=1.0)
SOUND = "底部的橙色按钮写着立即购买"
ALIKE = "底部的橙色按钮写着立刻购买"


def test_items_of_both_sets_may_share_an_id() -> None:
    reasons = {"1": prediction("1", reason=SOUND)}
    pseudo = {"1": Decision("查询物流", Origin.PSEUDO, "", ALIKE)}
    unspoken, alike = find_unused_reasons({}, pseudo, reasons, EmitSettings(), RATIONALES, seed=0)
    assert (unspoken, alike) == ({(Split.UNLABELLED, "1")}, 1)


def test_a_changed_label_has_only_the_teachers_reason() -> None:
    reasons = {"a": prediction("a", reason=SOUND), "b": prediction("b", reason=ALIKE)}
    changed = correction("a", action=Action.RELABEL, label="查询物流", adjudicated="查询物流", reason="用户问包裹")
    assert find_unused_reasons({"a": changed}, {}, reasons, EmitSettings(), RATIONALES, seed=0) == (set(), 0)


def test_the_share_of_reasons_is_drawn_per_item() -> None:
    reasons = {f"{i}": prediction(f"{i}", reason=chr(0x4E00 + i) * 12) for i in range(60)}
    settings = EmitSettings(reason_share=0.5)
    unspoken, _ = find_unused_reasons({}, {}, reasons, settings, RATIONALES, seed=0)
    some = {i: reasons[i] for i in list(reasons)[:20]}
    of_some, _ = find_unused_reasons({}, {}, some, settings, RATIONALES, seed=0)
    assert 15 < len(unspoken) < 45
    assert of_some == {key for key in unspoken if key[1] in some}
