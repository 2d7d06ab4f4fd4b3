"""Tell a model's refusal to answer from a reason that describes what somebody else cannot do.

"我无法判断" and "I can't help with that" are refusals; "无法下单，页面弹出提示" and "I can't check out" describe a
user's problem. A text is therefore judged clause by clause, by who cannot do what. Quotations do not count.
"""

import re

_QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|「[^」]*」|『[^』]*』|‘[^’]*’")
_CLAUSE_END = re.compile(r"[，,。；;！!？?\n—]+|\.(?=\s|$)|\s(?:but|so|and)\s(?=i\b)")
_CLAUSES = 6
"""Clauses read at the beginning of a text: a refusal does not come late."""


def _compile(*patterns: str) -> re.Pattern[str]:
    """Return a pattern that matches a clause that begins as any of `patterns` does; spaces only set words apart."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


# --- Chinese --------------------------------------------------------------------------------------------------

_ZH_OPENING = "(?:但是?|不过|然而|所以|因此|目前|暂时|现在|由于|很遗憾|实在|对此|恐怕|(?:理由|答案|回答)[:：])*"
_ZH_SELF = "(?:作为.{0,14})?(?:(?:对|关于|针对)?(?:这|该|此)[张个幅种类]?[^我]{0,4})?(?:我们?|本模型|本助手)"
_ZH_CANNOT = "(?:无法|不能|没法|没有?办法|难以|不便|不可以|未能|不会|不愿意?|拒绝|不予)"
_ZH_ADVERBS = "(?:暂时|目前|现在|也|还|实在|确实|真的|完全|恐怕|都|并|根本)*"
_ZH_TASK = (
    "(?:这|那|该|此|本|上述|[您你]的?|给出的|提供的|具体|其|任何|相关|是什么|对应|属于|所属|哪个?|的)*[张个幅条段种类份项]?"
    "(?:图片?|图像|截图|照片|画面|请求|要求|标签|类别|分类|归属|意图|理由|问题|内容|原因|依据|结论|答案)"
)
_ZH_ANSWER = (
    "(?:回答|作答|解答|协助|帮助|帮[您你]|满足|描述|评论|讨论|分类|归类|给出|得出|做出|推断|判断|判定|辨认|识别|分析)"
)
_ZH_PERCEIVE = (
    "(?:看清|看到|看见|看出|看懂|查看|读取|打开|加载|访问|确定|确认|获取"
    "|完成|处理|理解|提供|生成|说明|解释|执行|继续|写出)"
)
_ZH_STRONG = _compile(
    f"{_ZH_OPENING}{_ZH_SELF}{_ZH_ADVERBS}{_ZH_CANNOT}.{{0,6}}?(?:{_ZH_ANSWER}|{_ZH_PERCEIVE}(?:{_ZH_TASK}|$))",
    f"{_ZH_OPENING}{_ZH_SELF}{_ZH_ADVERBS}看不[清到见出懂](?:{_ZH_TASK}|$)",
    f"{_ZH_OPENING}我{_ZH_ADVERBS}没有?(?:看到|收到|找到){_ZH_TASK}",
    f"{_ZH_OPENING}我{_ZH_ADVERBS}不太?(?:知道|清楚|确定|明白)(?:这|该|此|图|应|它|$)",
    "(?:我只是|作为)(?:一[个名款位种]?)?.{0,8}?(?:ai|人工智能|语言模型|大模型)(?:语言)?(?:模型|助手|助理|系统|程序)?(?:$|我)",
)
_ZH_APOLOGY = _compile("(?:真的|很|非常|十分|实在)?(?:抱歉|对不起|不好意思|遗憾)")
_ZH_WEAK = _compile(
    f"{_ZH_OPENING}{_ZH_ADVERBS}{_ZH_CANNOT}.{{0,6}}?(?:{_ZH_ANSWER}|{_ZH_PERCEIVE})(?:{_ZH_TASK}.{{0,8}})?$",
    f"{_ZH_OPENING}{_ZH_TASK}.{{0,8}}{_ZH_CANNOT}.{{0,4}}?(?:{_ZH_ANSWER}|{_ZH_PERCEIVE})$",
    f".{{0,6}}看不[清到见出懂](?:{_ZH_TASK}.{{0,4}})?$",
    "请[您你]?(?:重新|再|先)?(?:提供|上传|发送|补充).{0,8}(?:图片?|截图|照片|信息|内容|对话)$",
    ".{0,6}信息(?:不足|不够|太少)",
    ".{0,8}(?:违反|违规|敏感内容|不当内容)",
)
_ZH_DESCRIBES = re.compile(
    "用户|买家|顾客|客户|消费者|客服|商家|卖家|店家|页面|弹窗|弹出|提示|显示|写着|写有|印着|红字|按钮|底部|顶部|上方|下方"
    r"|订单|快递|询问|追问|反映|申请|\d"
)
_ZH_UNABLE = re.compile(f"{_ZH_CANNOT}|看不|不清|模糊|没有|不足|不够|请[您你]?(?:重新|提供|上传)")

# --- English --------------------------------------------------------------------------------------------------

_EN_OPENING = (
    r"(?:(?:but|so|and|however|unfortunately|sadly|regrettably|therefore|since|because|as|currently|actually"
    r"|i(?:'m| am) afraid(?: that)?) )*"
)
_EN_ADVERBS = "(?:(?:simply|really|just|currently|also|still|reliably|accurately|confidently|clearly|actually) )*"
_EN_SELF_CANNOT = (
    rf"i ?{_EN_ADVERBS}(?:can(?:'t| ?not)|could(?:n't| not)|(?:am|'m) {_EN_ADVERBS}(?:unable|not able) to"
    r"|(?:won't|will not)(?: be able to)?|(?:must|have to) (?:decline|refuse) to|(?:decline|refuse) to"
    r"|(?:would|'d) rather not|prefer not to|don't (?:know how|have the ability) to) "
)
_EN_ANSWER = (
    r"(?:help|assist|comply|respond|comment|engage|classify|categori[sz]e|fulfil+|participate|do (?:that|this))\b"
)
_EN_PERCEIVE = (
    r"(?:see|read|tell|make out|understand|determine|identify|recogni[sz]e|analy[sz]e|interpret|describe|explain|infer"
    r"|answer|discuss|provide|give|offer|write|generate|produce|decide|judge|say|process|complete|be sure|assign|label"
    r"|be (?:determined|identified|classified|recogni[sz]ed|read|seen|provided|given))\b"
)
_EN_TASK = (
    r"(?: (?:an?|the|any|this|that|these|your|its|what|which|whether|of|from|in|on|with|about|to|enough|clear|specific"
    r"|exact|correct|right|accurate|reliable|attached|provided|blurry|one|more|certain|single|appropriate|proper|is|for))*"
    r" (?:images?|pictures?|photos?|screenshots?|contents?|text|labels?|categor\w+|class|intent\w*|requests?|reasons?"
    r"|rationale|explanations?|descriptions?|answers?|questions?|judge?ment|topic|it|that|this|anything|details?)\b"
)
_EN_LOAD = r"(?:view|open|load|access|find)(?: \w+){0,3} (?:images?|pictures?|photos?|screenshots?|attachments?)\b"
_EN_OWN = r"(?!.*\b(?:my|mine|our|me)\b)"
"""Not what belongs to whoever speaks: a user's order, not an item that a model is asked about."""
_EN_DOES = rf"{_EN_ADVERBS}(?:{_EN_ANSWER}|{_EN_PERCEIVE}(?:{_EN_TASK}|$)|{_EN_LOAD})"
_EN_STRONG = _compile(
    rf"{_EN_OPENING}{_EN_OWN}{_EN_SELF_CANNOT}{_EN_DOES}",
    rf"{_EN_OPENING}i (?:must|have to|will have to) (?:decline|refuse)\b",
    rf"{_EN_OPENING}i (?:don't|do not) (?:have (?:the (?:ability|capability)|enough|sufficient"
    r"|access to (?:the|this|any)|any (?:image|picture|photo))"
    r"|see (?:an?|any|the) (?:image|picture|photo|screenshot))\b",
    rf"{_EN_OPENING}i(?:'m| am) not (?:sure|certain){_EN_TASK}",
    r"as an? (?:\w+ ){0,3}(?:ai|language model)\b",
    r"i(?:'m| am) (?:just |only )?an? (?:\w+ ){0,3}(?:ai|language model)\b",
)
_EN_APOLOGY = _compile(
    r"(?:(?:i(?:'m| am)|we(?:'re| are)) )?(?:so |very |really |truly )?sorry\b", r"(?:my )?apologies\b|i apologi[sz]e\b"
)
_EN_WEAK = _compile(
    rf"{_EN_OPENING}{_EN_OWN}(?:(?:it|this)(?:'s| is) )?{_EN_ADVERBS}"
    rf"(?:cannot|can't|can not|could not|couldn't|(?:unable|not able|not possible|impossible) to) {_EN_DOES}",
    rf"(?:the|this|a)(?:{_EN_TASK})+.{{0,20}} (?:cannot|can't|could not) {_EN_DOES}",
    r"(?:there (?:is|was) )?no (?:image|picture|photo|screenshot|text)s?"
    r" (?:is |was |has been )?(?:provided|attached|given|found)",
    r"(?:there (?:is|was) )?(?:not enough|insufficient) (?:information|context|detail)",
    r"please (?:provide|upload|share|send|attach)\b.*\b(?:images?|pictures?|photos?|screenshots?|text)\b",
)
_EN_DESCRIBES = re.compile(
    r"\b(?:customer|user|buyer|seller|shopper|agent|merchant|courier|page|screen|dialog|pop-?up|button|banner|shows?|reads"
    r"|says|displayed|appears?|error|order|cart|checkout|asks?|wants|complains?|delivery|refund|coupon)\b|\d"
)
_EN_UNABLE = re.compile(r"\b(?:cannot|can't|can not|could not|unable|not|no|unclear|blurry|please|insufficient)\b")

_LANGUAGES = (
    (_ZH_STRONG, _ZH_APOLOGY, _ZH_WEAK, _ZH_DESCRIBES, _ZH_UNABLE),
    (_EN_STRONG, _EN_APOLOGY, _EN_WEAK, _EN_DESCRIBES, _EN_UNABLE),
)


def is_refusal(text: str) -> bool:
    """Return whether a model's answer, in Chinese or English, refuses to answer.

    A clause in which the model itself cannot answer is enough. An apology, or an inability of nobody in particular, is
    a refusal only if no other clause describes something.
    """
    clauses = _split(text)
    return any(_refuses(clauses, *patterns) for patterns in _LANGUAGES)


def _refuses(
    clauses: list[str],
    strong: re.Pattern[str],
    apology: re.Pattern[str],
    weak: re.Pattern[str],
    describes: re.Pattern[str],
    unable: re.Pattern[str],
) -> bool:
    if any(strong.match(clause) for clause in clauses):
        return True
    suspect = [weak.match(clause) or (place == 0 and apology.match(clause)) for place, clause in enumerate(clauses)]
    others = [clause for clause, found in zip(clauses, suspect, strict=True) if not found]
    return any(suspect) and not any(describes.search(other) and not unable.search(other) for other in others)


def _split(text: str) -> list[str]:
    """Return the first clauses of a text, in lower case, without quotations unless there is nothing else."""
    text = " ".join(text.replace("’", "'").lower().split())
    unquoted = _QUOTED.sub("“”", text)
    if not re.search(r"\w", unquoted):
        unquoted = text
    clauses = (clause.strip(" '\"“”*_:：-") for clause in _CLAUSE_END.split(unquoted))
    return [clause for clause in clauses if clause][:_CLAUSES]
