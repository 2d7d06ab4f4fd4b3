import pytest

from tasks.packs.pack import Pack, load_pack
from tasks.rationales.gate import (
    LabelledReason,
    judge_reason,
    judge_reasons,
    mark_labels,
    supports,
    write_complaint,
)
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import OTHER, RIGHT, BadReason, has_words, load_reason_words
from tasks.records import Sample
from tests.planted.refusals import CHINESE_REASONS, ENGLISH_REASONS
from tests.tasks.making import image, prediction, sample

LABELS = ("退款页", "退款", "商品页", "物流", "物流页面-物流跟踪页面", "订单详情页")
DEMO = load_pack("demo")


def pack(language: str) -> Pack:
    return DEMO.model_copy(update={"language": language, "reason_max_chars": 120 if language == "en" else 30})


CHINESE, ENGLISH = pack("zh"), pack("en")


def screen(**fields: object) -> Sample:
    return sample("s", image("a"), task="image", labels=LABELS, given="退款页", **fields)


def judge(reason: str) -> BadReason | None:
    return judge_reason(reason, screen(), "退款页", CHINESE)


@pytest.mark.parametrize(
    "reason",
    [
        "图中有进度条，写着“商家处理中”和35.9元",
        "这是退款页，有三个节点的进度条",
        "顶部红字“等待退款”，下方是撤销按钮",
        "衣服上的标签贴在领口，页面写着退款中",
        "用户用红圈标注了退款失败的提示",
        "提示词栏写着“搜索你想要的宝贝”，下方有金额",
        "这批货标签写着2023年，页面显示退款中",
        "iPhone 15 Pro Max的订单显示退款中",
        "只退钱不寄回，不是商品页",
        "有金额和退回银行卡的时间，与商品页不同",
        "先是商品页的大图，往下有退款进度和编号",
        "写着退款去向为余额，无物流跟踪页的轨迹",
        "订单编号800000012，有三个节点的进度条",
        "退款金额100000元，去向是银行卡",
        "验证码121212，下方是撤销按钮",
        "单号尾号000000与231231231，进度两格",
        "订单号     和三个节点的进度条",
    ],
)
def test_good_reasons_pass(reason: str) -> None:
    assert judge(reason) is None


WWW = load_pack("www2025")
SCREENS = [
    "页面上方是“全部、待付款、待发货”分类栏，下方列出三笔交易",
    "系统提示“库存不足，下单失败”，弹窗居中",
    "左侧为类别导航，右侧是女装商品",
    "任务中心列出每日签到和红包奖励",
    "红笔标注了裂缝位置，杯口缺了一角",
    "审核结果已告知买家：商家同意退款",
    "数据线接口处断裂，附有包装盒照片",
    "指定快递为顺丰，单号末四位3381",
    "平台已判定责任归商家，显示举证记录",
    "已选颜色“雾霾蓝”，尺码XL，底部有确定按钮",
    "投诉单编号与处理进度，显示待商家回应",
    "商品主图是白色电饭煲，右下角1/5",
    "订单状态为已完成，收货人和地址完整列出",
]
QUESTIONS = [
    "想知道两个型号功率差多少",
    "问灯的亮度能不能用遥控器调",
    "说杯盖拧紧了还是漏水",
    "孕妇能不能用，一天抹几次",
    "贴膜后有小泡赶不掉，问怎么办",
    "要求推荐一款适合油皮的面霜",
    "用户要求客服说明容量是多少毫升",
    "用户说别人都能用，自己的打不开",
]


@pytest.mark.parametrize(("task", "label"), [("image", "外部APP截图"), ("dialogue", "用法用量")])
def test_ordinary_reasons_of_the_challenge_pass(task: str, label: str) -> None:
    labels = tuple(WWW.task(task).labels)
    subject = sample("s", image("a") if task == "image" else "用户: 你好", task=task, labels=labels, given=label)
    for reason in SCREENS if task == "image" else QUESTIONS:
        assert judge_reason(reason, subject, label, WWW) is None, reason


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("看图", BadReason.TOO_SHORT),
        ("   \n  ", BadReason.TOO_SHORT),
        ("图中有进度条和金额，" * 4, BadReason.TOO_LONG),
        ('{"理由": "有进度条和金额"}', BadReason.GARBLED),
        ("有进度条\ufffd和金额", BadReason.GARBLED),
        ("进度条金额进度条金额进度条金额", BadReason.GARBLED),
        ("有进度条和金额啊啊啊啊啊", BadReason.GARBLED),
        ("金额35元金额35元金额35元", BadReason.GARBLED),
        ("35元，35元，35元，有进度条", BadReason.GARBLED),
        ("The page shows a refund bar", BadReason.OTHER_LANGUAGE),
        ("图中shows the refund amount", BadReason.OTHER_LANGUAGE),
        ("返金の進捗と金額です", BadReason.OTHER_LANGUAGE),
        ("给定标签说明它有金额", BadReason.LEAKS_LABEL),
        ("符合正确标签的含义，有金额", BadReason.LEAKS_LABEL),
        ("因为标签是这个，有金额", BadReason.LEAKS_LABEL),
        ("答案是退款页，有金额", BadReason.LEAKS_LABEL),
        ("已知这是退款页，所以有金额", BadReason.LEAKS_LABEL),
        ("已被人工标为退款页，有金额", BadReason.LEAKS_LABEL),
        ("题目告诉我们它有退款金额", BadReason.LEAKS_LABEL),
        ("布局像商品页一样有价格", BadReason.NAMES_OTHER_LABEL),
        ("有运输轨迹，是物流跟踪页", BadReason.NAMES_OTHER_LABEL),
        ("不是退款页，而是商品页", BadReason.NAMES_OTHER_LABEL),
        ("虽有退款金额，其实是订单详情页", BadReason.NAMES_OTHER_LABEL),
        ("有红色按钮，但不像退款页", BadReason.DENIES_LABEL),
        ("特征非常明显，一看就知道", BadReason.SAYS_NOTHING),
        ("这是一张退款页的截图", BadReason.SAYS_NOTHING),
        ("内容清晰完整，十分典型，令人信服", BadReason.SAYS_NOTHING),
    ],
)
def test_bad_reasons_are_found(reason: str, fault: BadReason) -> None:
    assert judge(reason) is fault


def test_a_reason_as_long_as_allowed_passes() -> None:
    reason = "红色进度条亮了两格写着金额三十五元九角以及撤销申请与查看钱款去向共三个灰色圆钮"[:30]
    assert len(reason) == 30
    assert judge(reason) is None
    assert judge(reason + "多") is BadReason.TOO_LONG


def test_what_the_user_says_may_be_quoted() -> None:
    subject = sample("s", "用户: 标签是什么料子，物流到哪了", labels=LABELS)
    assert judge_reason("用户问“标签是什么料子”和厚薄", subject, "退款页", CHINESE) is None
    assert judge_reason("用户问物流走到哪个站了", subject, "退款页", CHINESE) is None
    assert judge_reason("他说“标签是棉的”和厚薄", subject, "退款页", CHINESE) is BadReason.LEAKS_LABEL


def test_a_short_label_counts_only_as_the_answer() -> None:
    assert judge("下方有物流和撤销两个按钮") is None
    assert judge("有运单号和站点，属于物流") is BadReason.NAMES_OTHER_LABEL


def test_labels_are_marked_by_all_their_names() -> None:
    found = mark_labels("像物流跟踪页，不是物流页面-物流跟踪页面，是退款页", LABELS, "退款页")
    assert found.text == f"像{OTHER},不是{OTHER},是{RIGHT}"
    assert found.others == ("物流页面-物流跟踪页面",) * 2


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("A progress bar with two lit nodes and the sum 35.90", None),
        ("The white price label reads 35.90 above a red button", None),
        ("Not a product page: no price, but a refund bar with two nodes", None),
        ("The given label says that money goes back", BadReason.LEAKS_LABEL),
        ("It shows a bar, as the label indicates", BadReason.LEAKS_LABEL),
        ("A big picture and a price, so it is a product page", BadReason.NAMES_OTHER_LABEL),
        ("This is a very clear and typical example", BadReason.SAYS_NOTHING),
        ("图中有退款进度条和金额", BadReason.OTHER_LANGUAGE),
    ],
)
def test_english_has_lists_of_its_own(reason: str, fault: BadReason | None) -> None:
    subject = sample("s", image("a"), labels=("refund page", "product page"))
    assert judge_reason(reason, subject, "refund page", ENGLISH) is fault


def test_a_language_without_lists_is_judged_by_the_rest() -> None:
    assert not has_words("fr")
    assert judge_reason("une barre de progrès", screen(), "退款页", pack("fr")) is None
    assert judge_reason("une", screen(), "退款页", pack("fr")) is BadReason.TOO_SHORT
    assert write_complaint(BadReason.TOO_SHORT, "une", pack("fr")) == ""


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_fault_has_words_for_the_model(language: str) -> None:
    assert load_reason_words(language).faults.keys() == set(BadReason)
    said = [write_complaint(fault, "原来的话", pack(language)) for fault in BadReason]
    assert len(set(said)) == len(BadReason)
    assert all("原来的话" in s for s in said)


def test_a_set_is_judged_by_text_first_and_then_for_alikeness() -> None:
    texts = [f"第{i}行红字写着等待商家处理" for i in range(4)] + ["看图", "银行卡尾号3321收到退回的钱"]
    explained = [LabelledReason(screen(), "退款页", text) for text in texts]
    faults = judge_reasons(explained, CHINESE, RationaleSettings(), last=False)
    assert faults == [BadReason.ALIKE] * 4 + [BadReason.TOO_SHORT, None]
    assert judge_reasons(explained, CHINESE, RationaleSettings(), last=True)[:2] == [None, BadReason.ALIKE]


def test_support_is_known_only_by_probabilities() -> None:
    sure = prediction(label="退款页", probabilities={"退款页": 0.9, "商品页": 0.1})
    assert supports(sure, "退款页") is True
    assert supports(sure, "商品页") is False
    assert supports(prediction(label="商品页", votes={"商品页": 1}), "退款页") is None


DIALOGUE_LABELS = ("反馈用后症状", "下单失败", "物流异常", "用法用量", "咨询发票", "申请退款")


def judge_talk(reason: str, label: str) -> BadReason | None:
    subject = sample("s", "用户: 怎么办", labels=DIALOGUE_LABELS, given=label)
    return judge_reason(reason, subject, label, CHINESE.model_copy(update={"reason_max_chars": 50}))


@pytest.mark.parametrize("reason", CHINESE_REASONS)
def test_what_a_user_cannot_do_is_a_reason(reason: str) -> None:
    subject = sample("s", "用户: 怎么办", labels=("信号情况", "商品产地"))
    assert judge_reason(reason, subject, "信号情况", CHINESE.model_copy(update={"reason_max_chars": 50})) is None


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("下单失败", "系统提示下单失败，库存只剩0件"),
        ("下单失败", "页面提示下单失败，用户反复点按钮"),
        ("下单失败", "平台判定下单失败的原因是余额不足35元"),
        ("物流异常", "系统提示物流异常，包裹停在转运站5天"),
        ("物流异常", "快递公司已告知物流异常，车辆故障"),
        ("用法用量", "用户要求客服说明用法用量，孩子才两岁"),
        ("用法用量", "用户问说明书里写的用法用量是否饭后"),
        ("用法用量", "请客服解释用法用量，一天几勺"),
        ("咨询发票", "客服给出的答案是7天内寄出发票"),
        ("咨询发票", "问答区的答案里说发票随箱寄出，用户没找到"),
        ("申请退款", "用户收到错误的商品分类清单，要求退35元"),
        ("申请退款", "教辅书的标准答案印错，用户要退书"),
        ("申请退款", "题目缺页，用户要求退书款"),
        ("申请退款", "标签剪掉了，商家不收退货"),
        ("申请退款", "衣服标签没剪，用户要求退回"),
        ("申请退款", "用户按要求退货，商家却不退钱"),
        ("申请退款", "商家指定退款走原支付渠道，两天到账"),
        ("反馈用后症状", "用户用了三天脸上起红疹，问是否停用"),
        ("反馈用后症状", "用户反映抹后刺痛，医生诊断为过敏"),
    ],
)
def test_what_the_people_in_an_item_say_and_give_is_no_leak(label: str, reason: str) -> None:
    assert judge_talk(reason, label) is None


ENGLISH_LABELS = ("checkout failed", "asks about refund", "product label", "delivery delayed")


def judge_english(reason: str, label: str) -> BadReason | None:
    subject = sample("s", image("a"), labels=ENGLISH_LABELS, given=label)
    return judge_reason(reason, subject, label, ENGLISH)


@pytest.mark.parametrize("reason", ENGLISH_REASONS)
def test_what_a_user_cannot_do_is_a_reason_in_english(reason: str) -> None:
    assert judge_english(reason, "delivery delayed") is None


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("asks about refund", "The seller's answer is that money returns in seven days"),
        ("asks about refund", "The answer from the shop names a bank card ending in 3381"),
        ("asks about refund", "The buyer quotes the policy as stated on the receipt and wants 20 dollars back"),
        ("asks about refund", "The customer was told by the courier to claim the money"),
        ("asks about refund", "I was told the shoes would fit, they do not, send my money back"),
        ("asks about refund", "The customer writes that you said seven days and ten have passed"),
        ("asks about refund", "Instructions say to wash at 30 degrees, the shirt shrank, money back wanted"),
        ("asks about refund", "The task list in the app states two unpaid returns"),
        ("asks about refund", "The wrong category of filter was sent, money back wanted"),
        ("delivery delayed", "The expected answer from the courier never came, five days late"),
        ("delivery delayed", "The shipping label was printed on Monday, but the parcel has not moved"),
        ("delivery delayed", "The label is torn, so the parcel went back to the depot"),
        ("delivery delayed", "The parcel is marked as lost in transit since 3 May"),
        ("delivery delayed", "The question says the van has not left Lyon since 3 May"),
        ("delivery delayed", "According to the tracking answer it left Lyon six days ago"),
        ("checkout failed", "The pay button is grey and a red line says card refused"),
        ("checkout failed", "As told by the pop-up, stock is zero"),
        ("checkout failed", "The category menu is open, a dialog over it says sold out"),
        ("product label", "A white sticker with washing symbols and 100% cotton"),
        ("product label", "The label shows 60% wool and a crossed-out iron"),
        ("product label", "The correct size is printed on the collar tag in red"),
    ],
)
def test_what_people_and_things_in_an_item_say_is_no_leak_in_english(label: str, reason: str) -> None:
    assert judge_english(reason, label) is None
