"""Clauses about what a demo dialogue says: cores of an intent around its quoted words, and things that stand around."""

import re

from tasks.demo.dataset import DemoItem
from tasks.demo.dialogues import HOUSEHOLD, WORN

_CORES: dict[str, str] = {
    "询问发货时间": """
        用户问{p}的发货时间，说“{w}” 询问{p}何时发货：“{w}”
        买家惦记{p}啥时寄走，原话“{w}” 想知道仓库动身的日子：“{w}” 用户催{p}出库，说“{w}” 话里问的是寄出早晚——“{w}”
        “{w}”一句在打听{p}何时打包 客人等着{p}寄出，追问“{w}” 关心卖家几时交给快递，问“{w}” 那句“{w}”指向出仓日程
        为{p}的寄送日着急，用词“{w}” 他要一个寄件的准日子，“{w}” 着眼点是店家动作快慢，提到“{w}” 聊到{p}备货进度，“{w}”
        顾客拿“{w}”来确认{p}哪天离仓 东西尚在店里，问“{w}” 开口即“{w}”，盼{p}快寄 问店方排期，字眼为“{w}”
    """,
    "询问尺码": """
        用户不知{p}选哪个尺码，问“{w}” 拿尺码来问，说“{w}”
        拿不准{p}大小，问“{w}” 在乎{p}号数对不对，“{w}” 怕穿着不合身，提“{w}” “{w}”问的是穿多大的{p}
        用户在几个号之间犹豫：“{w}”
        买{p}前核对大小，说“{w}” 想让客服推荐号码，原句含“{w}” 围绕合身与否，用到“{w}” 关注{p}的尺寸松紧，“{w}”
        核对号码，话里有“{w}” 求个合适的号，写道“{w}” 顾虑{p}偏码，打字“{w}” 挑S、M还是XL这类事：“{w}”
        “{w}”透出对{p}版型的担心 客人掂量{p}号码，说出“{w}” 大一号小一号的疑问，“{w}”
    """,
    "询问材质": """
        询问{p}是什么材质，“{w}” 用户想知道材质，问“{w}”
        打听{p}的料，“{w}” 想弄清{p}拿什么做的：“{w}” 话头落在成分上，说“{w}” 问质地，原文“{w}” 关心{p}手感用料，提“{w}”
        “{w}”是在探{p}的面层里层 用户摸不到实物，只好问“{w}” 水洗标签上才有的内容：“{w}” 买{p}在意布料，写了“{w}”
        料好不好是重点，出现“{w}” 客人核实{p}真伪用料，“{w}” 纤维塑料之类的事，“{w}” 追究{p}构成，打出“{w}”
        顾客挑剔质料，用“{w}”发问 对{p}材料存疑：“{w}” 要知道是啥做成，“{w}”
    """,
    "申请退款": """
        用户要求退款，说“{w}” 提出退{p}，“{w}”是退款要求
        用户要把钱拿回，说“{w}” 不打算留{p}，“{w}” 嚷着“{w}”，求退{p} 意思是撤单还钱，字眼“{w}” “{w}”表明想退货款
        {p}不留了，提出“{w}” 讨回付款，原话有“{w}” 客人反悔，写“{w}” 围着还款一事打转：“{w}” 他对{p}提“{w}”，要回款
        请店家把款打回，“{w}” 交易想作罢，话中带“{w}” 盼着{p}的钱返账，“{w}” 明着要钱：“{w}” 退还诉求清楚，用词“{w}”
        顾客甩出“{w}”，想了结{p}这单
    """,
    "反馈破损": """
        反映{p}破损，说“{w}” 收到的货破损了，“{w}”
        {p}到手有毛病，说“{w}” 抱怨收到的货“{w}” 买家描述{p}伤处：“{w}” 开箱见坏，写“{w}” “{w}”讲的是{p}受损样子
        货品不完好，用户称“{w}” 拆包就发现“{w}” 告知{p}“{w}”，是运坏或次品 诉说外观缺陷，字样“{w}” 拿到的{p}已“{w}”
        客人投诉东西坏，“{w}” 质量出状况：“{w}” 指出{p}的伤，词为“{w}” 用“{w}”形容手里的残品 说{p}不能用了，“{w}”
        一句“{w}”道出坏损
    """,
    "询问优惠": """
        用户问{p}有没有优惠，说“{w}” 在问优惠，原话“{w}”
        想省点钱买{p}，问“{w}” 讲价的口气，“{w}” “{w}”说的是折价 打探{p}减免，写“{w}” 用户盼再少些，提“{w}”
        还没付就问便宜事：“{w}” 对{p}的促销有兴趣，“{w}” 在意花多少，用词“{w}” 客人求个低价，说“{w}”
        找活动找券，原句“{w}”
        {p}价钱能否松动，“{w}” 图划算，打了“{w}” 顾客以“{w}”砍{p}的价 为少掏钱而问“{w}” 要个实惠，话含“{w}”
        意在{p}打个折，出现“{w}”
    """,
    "查询物流": """
        查{p}的物流，问“{w}” 用户问快递到哪，说“{w}”
        包裹走哪儿了？原话“{w}” 寻{p}的下落，“{w}” 用户追踪运送，说“{w}” “{w}”问的是路上进度 等{p}等急了，提“{w}”
        已寄出的{p}没到，写“{w}” 打听派件情形：“{w}” 想看运输轨迹，字句“{w}” 客人问快件，用“{w}” {p}在途，追“{w}”
        收件人没见着货，“{w}” 盯着运单动静，话里“{w}” 催送件，冒出“{w}” 对{p}投递不放心，“{w}” 顾客关注到货路程：“{w}”
        货到何方，以“{w}”相问
    """,
    "询问用法": """
        用户问{p}的用法，说“{w}” 不知怎么使用，问“{w}”
        不会弄{p}，问“{w}” 请教操作：“{w}” “{w}”是在学着使{p} 用户拿到{p}不懂摆弄，“{w}” 求步骤，原文“{w}”
        想要使用方面的指点，提“{w}” 手头{p}该咋办，写“{w}” 问保养或操作的做法，“{w}” 客人求教一招：“{w}”
        {p}怎样上手，说“{w}”
        需要有人教，话中“{w}” 对{p}功能摸不透，“{w}” 打听做法，字眼是“{w}” 顾客要使用讲解，用“{w}”
        日常使{p}碰到难处，“{w}”
        关于怎样操弄，出现“{w}”
    """,
}

_AROUND: list[tuple[str, str]] = [
    ("hello", "起头招呼“{x}” 先喊一声“{x}” 开场白是“{x}” “{x}”打头 进门说“{x}” 由“{x}”聊起 首句“{x}”"),
    ("tail", "末了添“{x}” 补了句“{x}” 最后还打“{x}” 收口是“{x}” 尾巴带“{x}” 跟着发“{x}” 完后又“{x}”"),
    ("lead", "以“{x}”转入 话前有“{x}” 前缀“{x}” 带着“{x}”开腔 “{x}”之后才是正题"),
    (
        "early",
        """
        此前聊的“{x}”已放下 早先那句“{x}”不算数 头里扯过“{x}” 虽曾讲“{x}” 前面“{x}”答过了 起初谈“{x}”，后换话题
        旧话“{x}”在前 一上来说的“{x}”只是铺垫
        """,
    ),
    ("reply", "客服应“{x}” 店家答的是“{x}” 对面回“{x}” 客服只道“{x}” 那头接“{x}” 卖方说“{x}” 得到“{x}”的回应"),
    ("aside", "声明“{x}”的事先搁下 撇开“{x}”不谈 把“{x}”暂放 “{x}”那头按住不表"),
    (
        "image",
        """
        附图{x}张 贴了{x}幅图 一并传{x}张截图 随话发{x}图 配图{x}幅 晒出{x}张图 连图{x}张发来 图片共{x}
        传上{x}张照片或截屏 发图{x}枚作参考
        """,
    ),
    (
        "count",
        "往来{x}句 对话{x}轮 总共{x}条消息 前后{x}行 不过{x}轮 聊了{x}句 {x}句话里 {x}条记录 通篇{x}句 全程{x}轮",
    ),
    (
        "thing",
        """
        说的是{x} 针对{x} 物件为{x} 商品是{x} 指着{x} 就{x}而言 单说{x} 谈及{x} 对象：{x} 提到{x} 话题不离{x} 涉及{x}
        东西叫{x}
        """,
    ),
]


def cores(label: str) -> tuple[str, ...]:
    """Wordings of why a dialogue has the intent; `{w}` is what is said, `{p}` the article."""
    return tuple(_CORES[label].split())


def around(item: DemoItem) -> list[tuple[str, str, tuple[str, ...]]]:
    """What else stands in the dialogue: a kind, its words, and wordings with `{x}` for these."""
    found = facts(item)
    return [(kind, found[kind], tuple(text.split())) for kind, text in _AROUND if kind in found]


def facts(item: DemoItem) -> dict[str, str]:
    """Words of the dialogue by kind; `words` are those that decide, the other kinds are those of `_AROUND`."""
    turns = re.findall(r"^(用户|客服): (.*)$", item.instruction, flags=re.M)
    said = [re.sub("<image>", "", text).strip() for _, text in turns]
    quoted = re.findall("“(.+?)”", re.sub("^先提“.+?”，", "", item.reason))
    found = {"words": quoted[0], "count": str(len(turns)), "final": next(s for s in said[::-1] if quoted[0] in s)}
    images = item.instruction.split("<用户与客服的对话 END>")[0].count("<image>")
    if images:
        found["image"] = str(images)
    if said[0] in ("在吗", "你好", "有人吗", "亲在不"):
        found["hello"] = said[0]
    elif len(turns) > 1 and turns[1][0] == "客服" and said[0]:
        found["early"] = said[0]
    if said[-1] in ("麻烦快点回", "谢谢", "在等你回复", "人呢"):
        found["tail"] = said[-1]
    replies = [s for (who, _), s in zip(turns, said, strict=True) if who == "客服"]
    if replies:
        found["reply"] = replies[-1]
    if lead := re.match("(对了|请问|麻烦问下|还有)，", found["final"]):
        found["lead"] = lead[1]
    if aside := re.search("(?:^|，|那)([^，]{2})的事先不说", found["final"]):
        found["aside"] = aside[1]
    if thing := next((name for name in WORN + HOUSEHOLD if name in found["final"]), ""):
        found["thing"] = thing
    return found
