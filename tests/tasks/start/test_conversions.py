import json

from tasks.start.conversions import Row, convert_rows

PLAIN: Row = {"id": 1, "text": "a", "label": "b", "tags": ["x"]}


def convert(*rows: Row) -> list[Row]:
    converted = convert_rows(rows)
    assert converted is not None
    return converted[1]


def test_plain_rows_stay_as_they_are() -> None:
    assert convert_rows([PLAIN]) is None
    assert convert_rows([{}]) is None
    assert convert_rows([{"instruction": "a", "input": "", "output": "b"}]) is None


def test_all_turns_before_the_last_answer_are_the_text() -> None:
    turns = [
        ("system", "s"),
        ("user", "<image>hi"),
        ("assistant", "what?"),
        ("user", "broken"),
        ("assistant", "refund"),
    ]
    (row,) = convert(
        {"id": 7, "messages": [{"role": r, "content": c} for r, c in turns], "images": [{"path": "a.png"}]}
    )
    assert row == {
        "id": 7,
        "instruction": "user: <image>hi\nassistant: what?\nuser: broken",
        "image": ["a.png"],
        "output": "refund",
    }


def test_images_inside_texts_and_content_lists_become_placeholders() -> None:
    parts = [{"type": "image", "image": "b.png"}, {"type": "text", "text": "which?"}]
    rows = convert(
        {
            "conversations": [
                {"from": "user", "value": "Picture 1:<img>a.png</img>\nwhich?"},
                {"from": "gpt", "value": "x"},
            ]
        },
        {"conversations": [{"from": "user", "value": "<|vision_start|>c.png<|vision_end|>which?"}]},
        {"prompt": [{"role": "user", "content": parts}], "completion": [{"role": "assistant", "content": "y"}]},
    )
    assert [row["instruction"] for row in rows] == ["<image>\nwhich?", "<image>which?", "<image>which?"]
    assert [row["image"] for row in rows] == [["a.png"], ["c.png"], ["b.png"]]
    assert [row["output"] for row in rows] == ["x", None, "y"]


def test_the_label_is_taken_out_of_json_answers() -> None:
    answers = [{"理由": f"看到{n}", "所属类别": "猫狗"[n % 2]} for n in range(6)]
    rows = convert(
        *(
            {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": json.dumps(answer)}]}
            for answer in answers
        )
    )
    assert [row["output"] for row in rows] == ["猫", "狗"] * 3
    thought = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "<think>\nhm\n</think>\n\ncat"}]
    assert convert({"conversations": thought})[0]["output"] == "cat"


def make_task(*choices: list[str], cancelled: bool = False) -> Row:
    results = [{"from_name": "kind", "type": "choices", "value": {"choices": made}} for made in choices]
    annotations = [{"was_cancelled": cancelled, "result": [result]} for result in results]
    return {"id": 1, "data": {"image": "/data/local-files/?d=my%20shop/1.png", "text": "t"}, "annotations": annotations}


def test_annotations_give_one_label_each() -> None:
    rows = convert(make_task(["a"], ["b"]), make_task(["a", "b"]), make_task(["a"], cancelled=True), make_task())
    assert [row["output"] for row in rows] == ["b", None, None, None]
    assert rows[0]["image"] == "my shop/1.png"


def test_an_input_is_joined_to_its_instruction() -> None:
    rows = convert({"instruction": "Classify.", "input": "a text", "output": "x"})
    assert rows == [{"instruction": "Classify.\na text", "output": "x"}]
