"""Bad answers of models, into the parser."""

import json
import math
from random import Random
from typing import Any

from tasks.prompts.parsing import parse, parse_reason
from tasks.records import USABLE, FreeText, Generation, LabelAnswer, Outcome, Request, Rung, Sampling
from tests.properties.damage import ODD_TEXTS, damaged_row, damaged_text, sometimes
from tests.properties.result import Result

LABEL_SETS = (
    ("订单页面", "物流页面-派送中", "退款A", "退款B", "商品详情页截图"),
    ("是", "不是"),
    ("C", "C++", "C#"),
    ("a",),
)
# What engines set (records.Outcome), most of all the first two.
_ENGINES = (
    *(Outcome.OK, Outcome.TRUNCATED) * 5,
    *(Outcome.EMPTY, Outcome.TOO_LONG, Outcome.BAD_MEDIA, Outcome.FAILED),
)
_WRAPS = ("{}", "```json\n{}\n```", "好的：{}", "{}{}", "<think>{}</think>{}", "“{}”", "{} 希望有帮助")


def _asked(constraint: LabelAnswer | FreeText) -> Request:
    return Request(
        key="k", sample_id="s", purpose="classify", prefix="", parts=(), suffix="", constraint=constraint,
        sampling=Sampling(), max_pixels=784, min_pixels=784,
    )  # fmt: skip


def _text(rng: Random, labels: tuple[str, ...]) -> str:
    said: Any = {
        "理由": rng.choice(("因为有单号", "抱歉，我无法判断", *ODD_TEXTS)),
        "类别": rng.choice((*labels * 6, "别的", *ODD_TEXTS)),
    }
    text = json.dumps(sometimes(rng, 0.5, damaged_row, said), ensure_ascii=rng.random() < 0.3)
    text = rng.choice(_WRAPS).replace("{}", text)
    return sometimes(rng, 0.4, damaged_text, text)


def bad_answer(rng: Random) -> Result:
    """One answer of one to four bad texts: a prediction whose outcome says what it is worth."""
    labels = rng.choice(LABEL_SETS)
    reason_key = rng.choice(("理由", None))
    constraint = LabelAnswer(
        labels=labels,
        reason_key=reason_key,
        label_key="类别",
        opening='{"理由": "',
        between='", "类别": "',
        closing='"}',
    )
    texts = tuple(_text(rng, labels) for _ in range(rng.randint(0, 4)))
    odd = (0.0, -1.0, -800.0, -math.inf, math.nan, 5.0)
    logprobs = {label: rng.choice(odd) for label in rng.sample((*labels, "?"), rng.randint(0, len(labels)))}
    outcome = rng.choice(_ENGINES)
    answer = Generation(key="k", outcome=outcome, texts=texts, label_logprobs=rng.choice((None, logprobs)))
    result = Result()
    prediction = parse(_asked(constraint), answer, source="teacher", model="m")
    prediction.model_dump_json()
    usable = prediction.outcome in USABLE
    result.require((prediction.label in labels) == usable, f"{prediction.outcome} with label {prediction.label!r}")
    result.require(usable or prediction.rung is Rung.NONE, "a rung without a label")
    result.require(sum(prediction.votes.values()) <= len(texts), "more votes than answers")
    result.require(all(0 <= p <= 1 for p in prediction.probabilities.values()), f"{prediction.probabilities}")
    ended, found = parse_reason(_asked(FreeText()), answer)
    reason = found.text
    result.require(bool(reason) == (ended is Outcome.OK), f"{ended} with reason {reason!r}")
    reason.encode()
    return result.count(prediction.outcome.value)
