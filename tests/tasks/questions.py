"""Questions and their answers for tests of the ledger; child processes import it too."""

from typing import Any

from tasks.models.ledger.ledger import Ledger
from tasks.records import Generation, LabelAnswer, Request, Sampling
from tests.tasks.making import generation, image, parts

PREFIX = "这是任务的说明。" * 50


def question(key: str = "k", **fields: Any) -> Request:
    values: dict[str, Any] = {
        "sample_id": f"sample-{key}",
        "purpose": "classify",
        "prefix": PREFIX,
        "parts": parts(f"用户: “{key}”\n", image("a" * 64), "客服: 好的"),
        "suffix": "\n只输出JSON",
        "constraint": LabelAnswer(
            labels=("订单页面", "退款A"),
            reason_key="理由",
            label_key="所属类别",
            opening='{"理由": "',
            between='", "所属类别": "',
            closing='"}',
        ),
        "sampling": Sampling(n=3, temperature=0.7),
        "max_pixels": 1003520,
        "min_pixels": 3136,
    }
    return Request(key=key, **values | fields)


def keep(ledger: Ledger, key: str = "k", **fields: Any) -> Generation:
    """Put an answer with these fields to the question `key`."""
    answer = generation(key, **fields)
    ledger.put(question(key), answer)
    return answer
