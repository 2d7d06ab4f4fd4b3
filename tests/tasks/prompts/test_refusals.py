import pytest

from tasks.prompts.refusals import is_refusal
from tests.planted.refusals import CHINESE_REASONS, CHINESE_REFUSALS, ENGLISH_REASONS, ENGLISH_REFUSALS


@pytest.mark.parametrize("text", CHINESE_REFUSALS + ENGLISH_REFUSALS)
def test_every_refusal_is_found(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", CHINESE_REASONS + ENGLISH_REASONS)
def test_no_good_reason_is_a_refusal(text: str) -> None:
    assert not is_refusal(text)
