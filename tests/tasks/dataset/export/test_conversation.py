import pytest

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample
from tasks.prompts.turns import IMAGE_TOKEN, escape_placeholder, make_user_content, make_user_text
from tasks.records import Sampling
from tests.tasks.dataset.export.making import ask, make_conversation, make_example
from tests.tasks.making import image, prompter, sample

WORDS = [
    "<image>",
    "<video>",
    "<audio>",
    "<img>",
    "</img>",
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|vision_start|>",
    "<|image_pad|>",
    "{{idx}}",
]


@pytest.mark.parametrize("word", WORDS)
def test_special_tokens_are_escaped_the_same_way_everywhere(word: str) -> None:
    escaped = escape_placeholder(word)
    assert word not in escaped and escape_placeholder(escaped) == escaped
    assert escape_placeholder(f"a{word}b{word}") == f"a{escaped}b{escaped}"
    request = prompter().classify(sample("s", f"用户: 见{word}", image("1")), Sampling())
    text = make_user_text(request)
    assert f"见{escaped}" in text and text.count(IMAGE_TOKEN) == 1
    shown = [e["text"] if e["type"] == "text" else IMAGE_TOKEN for e in make_user_content(request)]
    assert "".join(shown) == text
    held = make_conversation(make_example(("system", word), ("user", "问"), ("assistant", word)))
    assert (held.system, held.turns) == (escaped, (("问", escaped),))


@pytest.mark.parametrize(
    "text", ["Picture 1: 图", "a < b > c", "<b>粗</b>", "<img src=x>", "<think>", "{{content}}", "<||>", "3 <| 4 |> 5"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert escape_placeholder(text) == text


def test_only_questions_keep_image_placeholders() -> None:
    held = make_conversation(ask("<image>看<|image_pad|><image><img>/a.png</img>", images=2))
    assert held.turns[0][0] == "<image>看＜|image_pad|＞<image>＜img＞/a.png＜/img＞"
    assert held.messages() == [{"role": "user", "content": held.turns[0][0]}, {"role": "assistant", "content": "答"}]


def test_a_system_turn_comes_first() -> None:
    held = make_conversation(
        make_example(("system", "规则"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    )
    assert [m["role"] for m in held.messages()] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("turns", "images", "reason", "message"),
    [
        pytest.param(
            (("user", "<image>"), ("assistant", "a")), 0, "images_do_not_match", "1 `<image>` for 0", id="none"
        ),
        pytest.param((("user", ""), ("assistant", "a")), 1, "images_do_not_match", "0 `<image>` for 1", id="no token"),
        pytest.param((("user", "a"),), 0, "turns_do_not_alternate", "alternate", id="no answer"),
        pytest.param(
            (("user", "a"), ("user", "b"), ("assistant", "c")), 0, "turns_do_not_alternate", "", id="two users"
        ),
        pytest.param((("assistant", "a"), ("user", "b")), 0, "turns_do_not_alternate", "", id="answer first"),
        pytest.param(
            (("user", "a"), ("system", "s"), ("assistant", "b")), 0, "turns_do_not_alternate", "", id="system inside"
        ),
        pytest.param(
            (("system", "s"), ("system", "s"), ("user", "a"), ("assistant", "b")),
            0,
            "turns_do_not_alternate",
            "",
            id="two",
        ),
        pytest.param((("system", "s"),), 0, "turns_do_not_alternate", "", id="system only"),
        pytest.param((), 0, "turns_do_not_alternate", "", id="nothing"),
    ],
)
def test_examples_that_readers_would_skip_or_misread_are_refused(
    turns: tuple[tuple[str, str], ...], images: int, reason: str, message: str
) -> None:
    with pytest.raises(UnsupportedExample, match=f"item item-7: .*{message}") as caught:
        make_conversation(make_example(*turns, images=images))
    assert caught.value.reason is LeftOutReason(reason)
