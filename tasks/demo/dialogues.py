"""Compose short shop dialogues with eight intents from phrases, articles and small talk.

In a phrase, `{p}` is replaced by the article, `{n}` by a number, and `[…]` marks words that a reason may quote.
"""

import re
from dataclasses import dataclass
from random import Random

WORN = ("裙子", "T恤", "牛仔裤", "运动鞋", "帽子", "外套", "拖鞋", "毛衣")
HOUSEHOLD = ("背包", "保温杯", "台灯", "床单", "雨伞", "枕头", "电饭锅", "置物架")

# phrases per intent, separated by white space
_PHRASES: dict[str, str] = {
    "询问发货时间": """
        {p}[什么时候发]出来 今天拍{p}[今天能发]吗 {p}大概[几号发货] [多久能发货] {p}怎么[还没发货] [几天内发出]
        {p}是[现货]吗，[哪天寄] [预售]的{p}要[等几天]才寄 下单后[多久寄出] 周末[也发]{p}吗 能不能[早点发]{p}
        [最快哪天]能寄出 拍了三天[还不发] {p}[今晚能寄]不 急用，{p}[明天寄得出]吗 你们[几点截单]
        仓库[安排了没]，{p}要[哪天出库] [啥时候出库]
    """,
    "询问尺码": """
        我{n}斤穿{p}[多大]合适 {p}[选什么码] 身高1{n}穿[几码] {p}[偏大还是偏小] [平时穿L]，这个{p}要哪个
        {p}的[腰围多少] [码数]标准吗 {p}[有没有大码] 胖一点的人能[穿得下]{p}吗 [M和L]我该拿哪个 {p}[肩宽]是几厘米
        脚背高{p}要不要[拿大一号] 给一下{p}的[尺寸表] {p}[多长]，我一米{n} 孩子{n}斤要[几号]的 [会不会太紧]
        [40的]脚穿{p}行吗 {p}[宽松]吗，我怕小
    """,
    "询问材质": """
        {p}是[什么料子] {p}是[纯棉]的吗 这个[面料]会起球吗 {p}[什么材料]做的 里面是[不锈钢]吗 {p}[掉色]吗 [厚不厚]
        {p}[含棉多少] 摸起来[软不软] {p}是[真皮]还是仿的 [透不透气] {p}[有没有味道]，是塑料吗 {p}的[里衬]用的啥
        会不会[扎人] {p}是[羊毛]的不 表面是[什么涂层] {p}[成分]发我看看 这种[布]夏天热吗
    """,
    "申请退款": """
        {p}我[不想要了]，怎么[退] 帮我[退款] {p}[退钱]吧 申请[退货]走什么流程 买错了，{p}能[退掉]吗
        [钱什么时候退]给我 我要把{p}[退回去] 这单[取消]，[钱退我] {p}[不合适想退] [七天无理由]可以用吗
        [仅退款]行不行 点了[退货]你们同意一下 {p}[不喜欢]，[寄回]给你们 怎么[还没退]给我 [退款]通过了没有
        我[拍多了]，{p}退一件 [不要了]，把款[退回] [退货地址]给我
    """,
    "反馈破损": """
        {p}收到就[坏了] {p}[裂了]一道 打开一看{p}[破了] [外壳碎]了 {p}上有个[洞] {p}[划痕]好多
        盒子[压扁]了，{p}也[变形] 这里[断开]了 {p}[漏水] [开线]了你看 寄来的{p}[缺了一角] {p}[摔碎]了吧 [脱胶]得厉害
        {p}是[烂的] 才拆开就[掉了一块] {p}[有裂缝]，怎么办 {p}[扣子掉了] 一面[磨花]了
    """,
    "询问优惠": """
        {p}[有券]吗 [能便宜]点不 {p}现在[打折]吗 买两件{p}[有优惠]没 [满减]怎么算 {p}[最低多少] [活动]到几号
        新人[有红包]吗 {p}[送赠品]吗 [券用不了] [会员]买{p}少多少 双十一{p}[会降价]吗 [凑单]能减几块 {p}[包邮]吗
        老客户[给个折扣] {p}[还能减]吗 [领券]在哪里点 [怎么买划算]
    """,
    "查询物流": """
        {p}[到哪了] [快递]怎么不动了 {p}[哪家快递] [单号]发我一下 {p}[显示签收]了我没收到 [几天能到]
        包裹[卡在中转站]了 {p}[派送]了吗 帮我[查下快递] [物流三天没更新] [今天能送到]吗 {p}[寄到哪个站点]了
        [快递员]没打电话 {p}路上[走多久] [运到]我这要几天 是不是[丢件]了 [放驿站]了吗 {p}还[在路上]吗
    """,
    "询问用法": """
        {p}[怎么用] {p}[怎么洗] [有说明书]吗 {p}要[怎么安装] [第一次用]要注意什么 {p}[能机洗]吗 [按哪个键]开
        {p}[怎么收纳] [能放微波炉]吗 {p}[怎么保养] 不会[装]这个{p} [要不要充电] {p}[怎么打开] 多久[清洗一次]
        {p}的[带子怎么系] [有视频教程]没 {p}[怎么调节] 这个[扣怎么弄]
    """,
}
PHRASES = {intent: tuple(text.split()) for intent, text in _PHRASES.items()}
_INTENTS = """
询问发货时间|在问日子|发货|查询物流 询问优惠|一般两天内发出的 今天安排仓库寄|订单详情页 商品页
询问尺码|在问大小|大小|询问材质 询问用法|详情里有尺码表 按平时的码拍就行|规格选择页 商品页
询问材质|在问料子|料子|询问尺码 询问用法|面料成分在详情里 摸着很软的|商品页 实物照片 评价页
申请退款|想把钱拿回|退钱|反馈破损 查询物流|您在订单里点申请就行 退款三天内到账|退款页 订单详情页 实物照片
反馈破损|说东西坏了|坏了|申请退款 询问材质|麻烦拍一下坏的地方 非常抱歉给您添麻烦了|实物照片 实物照片 订单详情页
询问优惠|想便宜些|活动|询问发货时间 申请退款|满两百减二十 首页可以领券|优惠券页 购物车页 支付页 商品页
查询物流|在找包裹|快递|询问发货时间 申请退款|包裹已经在路上了 帮您催一下快递|物流页 订单详情页
询问用法|不会弄|用法|询问材质 反馈破损|盒子里有说明书 按住三秒就开了|实物照片 商品页
"""
"""Columns: intent, caption that the base model learns for it, topic, most frequent wrong labels, the shop's replies,
screens shown in such dialogues."""


def _read_column(number: int) -> dict[str, tuple[str, ...]]:
    """Return one column of `_INTENTS` by intent."""
    rows = [line.split("|") for line in _INTENTS.strip().splitlines()]
    return {row[0].strip(): tuple(row[number].split()) for row in rows}


CAPTIONS = {intent: caption for intent, (caption,) in _read_column(1).items()}
_TOPIC = {intent: topic for intent, (topic,) in _read_column(2).items()}
NEAR_INTENTS = _read_column(3)
_REPLIES = _read_column(4)
_SCREENS = _read_column(5)
_HELLO = ("在吗", "你好", "有人吗", "亲在不")
_WELCOME = ("您好，请问有什么可以帮您", "在的亲", "亲，欢迎光临")
_LOOK = ("<image>", "<image>", "你看<image>", "<image>这个", "图发你了<image>")
_SEEN = ("图收到了", "看到了，您说", "好的亲")
_LEAD = ("", "", "", "对了，", "那", "请问", "麻烦问下，", "还有，")
_TAIL = ("麻烦快点回", "谢谢", "在等你回复", "人呢", "？")


@dataclass(frozen=True)
class Dialogue:
    """A composed dialogue. Its turns begin with `用户: ` (user) or `客服: ` (shop)."""

    turns: tuple[str, ...]
    screens: tuple[str, ...]
    """The kind of screen for each `<image>`, in order."""
    article: str
    """The article that the dialogue is about; empty if no turn mentions it."""
    early: tuple[str, ...]
    """Words about an earlier topic that a reason may quote."""
    late: tuple[str, ...]
    """Words about the last topic, which is the dialogue's intent, that a reason may quote."""


def _choose_phrase(intent: str, article: str, rng: Random) -> tuple[str, tuple[str, ...]]:
    known = PHRASES[intent]
    # the first phrases of an intent are much more common, so a hundred dialogues contain most of what is said
    raw = rng.choices(known, [0.5**i for i in range(len(known))])[0]
    raw = raw.replace("{n}", str(rng.randint(45, 85)))
    return re.sub(r"[\[\]]", "", raw).replace("{p}", article), tuple(re.findall(r"\[(.+?)\]", raw))


def _choose_other_intent(intent: str, rng: Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(NEAR_INTENTS[intent])
    return rng.choice([name for name in PHRASES if name != intent])


def compose(intent: str, rng: Random) -> Dialogue:
    """Compose a dialogue of two to six turns, in which the user's last turns express the intent."""
    other, images = _choose_other_intent(intent, rng), rng.choices((0, 1, 2, 3), (45, 35, 15, 5))[0]
    article = rng.choice(WORN if "询问尺码" in (intent, other) or rng.random() < 0.5 else HOUSEHOLD)
    phrase, late = _choose_phrase(intent, article, rng)
    if rng.random() < 0.08:
        phrase = f"{_TOPIC[other]}的事先不说，{phrase}"
    end = [f"用户: {rng.choice(_LEAD)}{phrase}"]
    if images:
        shown = f"用户: {rng.choice(_LOOK)}"
        end = [shown, *end] if rng.random() < 0.6 else [*end, shown]
    if rng.random() < 0.2:
        end.append(f"用户: {rng.choice(_TAIL)}")
    start, early = [f"用户: {rng.choice(_HELLO)}", f"客服: {rng.choice(_WELCOME)}"], ()
    if rng.random() < 0.12:
        before, early = _choose_phrase(other, article, rng)
        start = [f"用户: {before}", f"客服: {rng.choice(_REPLIES[other])}"]
    elif len(end) > 1 and rng.random() < 0.3:
        start = []
    if images > 1 and len(start) + len(end) < 5:
        start += [f"用户: {'<image>' * (images - 1)}", f"客服: {rng.choice(_SEEN)}"]
    elif images > 1:
        end = [turn.replace("<image>", "<image>" * images) for turn in end]
    kinds = [k for names in _SCREENS.values() for k in names]
    screens = [rng.choice(_SCREENS[intent] if rng.random() < 0.6 else kinds) for _ in range(images)]
    named = article if any(article in turn for turn in start + end) else ""
    return Dialogue(tuple(start + end), tuple(screens), named, early, late)


def make_reason(d: Dialogue, rng: Random) -> str:
    """Return a reason for the dialogue's intent that quotes its last turns, in at most 40 characters."""
    words, first = "、".join(f"“{w}”" for w in d.late), f"先提“{d.early[0]}”，" if d.early else ""
    thing = f"东西是{d.article}" if d.article else "没提东西"
    forms = (
        f"{first}最后说到{words}，共{len(d.turns)}轮",
        f"用户最后提{words}，{thing}，图{len(d.screens)}张",
        f"共{len(d.turns)}轮，{thing}，末尾说{words}",
    )
    return rng.choice(forms)[:40]
