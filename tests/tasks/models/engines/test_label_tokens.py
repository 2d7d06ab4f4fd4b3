import asyncio
import math
from collections.abc import Mapping, Sequence

import pytest

from tasks.models.engines.server.label_tokens import compute_label_logprobs, find_branches

CLOSING = '"}'
LABELS = ("物流页", "物流页-派送中", "退款页", "物品", "退货")
P = {"物流页": 0.3, "物流页-派送中": 0.1, "退款页": 0.2, "物品": 0.15, "退货": 0.25}


class Letters:
    """A tokenizer with one token per character, but `页"` and, where it opens an answer, `"物` are single tokens."""

    merged = ('页"', '"物')

    def __init__(self) -> None:
        self.known: list[str] = []

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        pieces: list[str] = []
        while text:
            size = 2 if text[:2] in self.merged else 1
            pieces.append(text[:size])
            text = text[size:]
        for piece in pieces:
            if piece not in self.known:
                self.known.append(piece)
        return {"input_ids": [self.known.index(p) for p in pieces]}

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return "".join(self.known[i] for i in ids)


class Model:
    """Writes labels by their probabilities, token by token; half of the probability goes to texts that are no label."""

    def __init__(self, letters: Letters, stem: str) -> None:
        self.letters, self.stem, self.calls = letters, stem, 0

    async def ask(self, text: str, tokens: tuple[int, ...]) -> Mapping[int, float]:
        self.calls += 1
        begun = self.letters(text)["input_ids"]
        masses: dict[int, float] = {}
        for label, p in P.items():
            written = self.letters(self.stem + label + CLOSING)["input_ids"]
            if written[: len(begun)] == begun:
                masses[written[len(begun)]] = masses.get(written[len(begun)], 0.0) + p
        total = 2 * sum(masses.values())
        return {token: math.log(masses[token] / total) for token in tokens}


@pytest.mark.parametrize("stem", ['{"理由": "见图", "类": "', '{"理由":"见图","类":"', "类="])
def test_the_probabilities_are_those_of_constrained_decoding(stem: str) -> None:
    letters = Letters()
    tokens = find_branches(letters, stem, LABELS, CLOSING)
    assert tokens is not None
    model = Model(letters, stem)
    found = asyncio.run(compute_label_logprobs(tokens, "", len(LABELS), model.ask))
    assert found is not None
    assert [math.exp(p) for p in found] == pytest.approx([P[label] for label in LABELS])
    assert model.calls == 4 if tokens.text == stem else model.calls <= 4


def test_labels_that_differ_in_their_first_token_take_one_pass() -> None:
    letters, labels = Letters(), ("甲", "乙", "丙")
    tokens = find_branches(letters, "是", labels, CLOSING)
    assert tokens is not None and not tokens.branches
    assert len(tokens.labels) == 3


def test_an_unlikely_branch_is_divided_without_a_request() -> None:
    letters = Letters()
    tokens = find_branches(letters, "是", ("甲", "乙丙", "乙丁"), CLOSING)
    assert tokens is not None
    calls: list[str] = []

    async def ask(text: str, wanted: tuple[int, ...]) -> Mapping[int, float]:
        calls.append(text)
        return {token: 0.0 if letters.known[token] == "甲" else -20.0 for token in wanted}

    found = asyncio.run(compute_label_logprobs(tokens, "", 3, ask))
    assert calls == ["是"]
    assert found is not None and found[1] == found[2] == pytest.approx(-20.0 - math.log(2))


def test_a_server_that_leaves_a_token_out_gives_no_probabilities() -> None:
    letters = Letters()
    tokens = find_branches(letters, "是", ("甲", "乙"), CLOSING)
    assert tokens is not None

    async def ask(text: str, wanted: tuple[int, ...]) -> Mapping[int, float]:
        return {wanted[0]: -1.0}

    assert asyncio.run(compute_label_logprobs(tokens, "", 2, ask)) is None


def test_labels_that_tokens_cannot_tell_apart_have_none() -> None:
    assert find_branches(Letters(), "是", ("甲", "甲"), CLOSING) is None
    assert find_branches(Letters(), "是", ("甲", "甲乙"), "") is None  # the end of the first cannot be recognised
