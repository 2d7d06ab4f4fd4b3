import json
import math
import time
from collections import Counter
from itertools import count, islice
from pathlib import Path

import pytest

from tasks.errors import EngineError
from tasks.media import TextPart
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.prompts.parsing import parse
from tasks.records import FreeText, LabelAnswer, Outcome, Request, Sampling

LABELS = ("订单", "物流", "物流-派送中", "退款")
NOWHERE = Workplace(ImageCache(Path("unused")), Path("unused"))


def engine(script: str):
    return open_engine(EngineSpec(engine="scripted", model=script), NOWHERE)


def request(key: str = "k", text: str = "", *, free: bool = False, reason: bool = True) -> Request:
    answer = LabelAnswer(
        labels=LABELS,
        reason_key="理由" if reason else None,
        label_key="类别",
        opening='{"理由": "' if reason else '{"类别": "',
        between='", "类别": "' if reason else None,
        closing='"}',
    )
    return Request(
        key=key,
        sample_id=key,
        purpose="classify",
        prefix="问",
        parts=(TextPart(text=text),),
        suffix="答",
        constraint=FreeText() if free else answer,
        sampling=Sampling(label_probabilities=True),
        max_pixels=784,
        min_pixels=784,
    )


def label_of(script: str, asked: Request) -> str:
    (generation,) = engine(script).generate([asked])
    assert generation.label_logprobs is not None
    label = json.loads(generation.texts[0])["类别"]
    assert label == max(generation.label_logprobs, key=generation.label_logprobs.__getitem__)
    assert sum(map(math.exp, generation.label_logprobs.values())) == pytest.approx(1)
    return label


def test_first_echo_and_hash():
    assert label_of("scripted:first", request("a", "退款")) == "订单"
    assert label_of("scripted:echo", request("a", "物流-派送中的图")) == "物流-派送中"
    assert label_of("scripted:echo", request("a")) == label_of("scripted:hash", request("a"))
    chosen = Counter(label_of("scripted:hash", request(str(i))) for i in range(40))
    assert set(chosen) == set(LABELS)


@pytest.mark.parametrize("reason", [True, False])
def test_answers_parse_strictly_and_repeat(reason: bool):
    asked = request("a", reason=reason)
    first, second = engine("scripted:hash").generate([asked, asked])
    assert first == second
    prediction = parse(asked, first, source="teacher", model="scripted")
    assert prediction.outcome is Outcome.OK
    assert bool(prediction.reason) is reason


def test_every_nth_is_malformed():
    requests = [request(str(i)) for i in range(9)]
    generations = engine("scripted:first,bad=3").generate(requests)
    outcomes = [parse(r, g, source="t", model="m").outcome for r, g in zip(requests, generations, strict=True)]
    assert outcomes == [Outcome.OK, Outcome.OK, Outcome.MALFORMED] * 3


def test_a_slow_script_answers_lazily():
    began = time.perf_counter()
    answered = list(islice(engine("scripted:hash,slow=0.02").generate(request(str(i)) for i in count()), 3))
    assert [g.key for g in answered] == ["0", "1", "2"]
    assert 0.06 <= time.perf_counter() - began < 2


def test_free_text_has_no_label():
    (generation,) = engine("scripted:").generate([request(free=True)])
    assert generation.texts[0]
    assert generation.label_logprobs is None


@pytest.mark.parametrize("script", ["scripted:best", "first", "scripted:slow=x", "scripted:bad=-1", "Qwen/Qwen2-VL"])
def test_unknown_scripts_are_refused(script: str):
    with pytest.raises(EngineError, match="unknown script"):
        engine(script)
