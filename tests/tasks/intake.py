"""Items in the challenge's format, for the tests of the intake."""

from typing import Any

from tasks.items.samples import Intake

SHOWN = 'Picture 1: <image>\n你是一个网店识图助手,请判断图片属于哪一类。分类标签:["商品页","支付页"]。'
SAID = "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n用户: 在吗\n<用户与客服的对话 END>\n"


def item(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "instruction": SHOWN, "image": ["a.png"], "output": "商品页"} | fields


def reasons(intake: Intake) -> list[tuple[str, str]]:
    return [(d.sample_id, d.reason) for d in intake.dropped]
