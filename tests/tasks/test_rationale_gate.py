import pytest

from tasks.rationale_gate import BadReason, judge_reason
from tests.tasks.making import sample

LABELS = ("退款页", "退款", "商品页", "物流")


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("图中有退款进度条和金额", None),
        ("这是退款页，有进度条", None),
        ("看图", BadReason.TOO_SHORT),
        ("   \n  ", BadReason.TOO_SHORT),
        ("图" * 31, BadReason.TOO_LONG),
        ("图" * 30, None),
        ("给定标签说明它是退款", BadReason.LEAKS_LABEL),
        ("符合正确标签的含义", BadReason.LEAKS_LABEL),
        ("根据标签，图中是退款", BadReason.LEAKS_LABEL),
        ("因为正确的标签是这个", BadReason.LEAKS_LABEL),
        ("As The Given Label says", BadReason.LEAKS_LABEL),
        ("图中的标签贴在衣服上", None),
        ("布局像商品页一样有价格", BadReason.NAMES_OTHER_LABEL),
        ("图中有退款字样", None),  # another label, but part of the right one
        ("用户问物流到哪了", None),  # another label, but the user says it
    ],
)
def test_a_reason_is_judged_by_its_text(reason: str, verdict: BadReason | None) -> None:
    subject = sample("s", "用户: 物流到哪了", labels=LABELS)
    assert judge_reason(reason, subject, "退款页", 30) == verdict
