from tasks.packs.columns import DEFAULT_COLUMNS, Columns
from tasks.packs.pack import load_pack
from tasks.start.grouping import find_known_pack, group_items

WORDS = ["order", "parcel", "colour", "size", "price", "refund", "coupon", "review", "seller", "photo"]
NATURAL = [(f"{WORDS[n % 10]} {WORDS[n // 10 % 10]} is a question of number {n}", "ab"[n % 2]) for n in range(100)]


def test_natural_texts_are_one_task_without_a_pattern() -> None:
    (task,) = group_items(NATURAL)
    assert task.recognise is None and task.labels == {"a": 50, "b": 50}
    assert len(group_items([("", "a"), ("", "b")])) == 1


def test_wordings_with_the_same_labels_are_one_task() -> None:
    items = [(f"{('What is meant by', 'Name the intent of')[n % 2]}: {text}", "ab"[n % 4 // 2])
             for n, (text, _) in enumerate(NATURAL)]  # fmt: skip
    assert len(group_items(items)) == 1


def test_texts_that_tell_their_label_are_one_task() -> None:
    (task,) = group_items([(f"{word} and nothing else", word) for word in WORDS[:3] for _ in range(20)])
    assert task.recognise is None and task.labels == dict.fromkeys(WORDS[:3], 20)


def test_prompts_with_labels_of_their_own_are_tasks() -> None:
    shown = [("<image>\nWhat does the photo show? Answer in one word.", "xy"[n % 2]) for n in range(50)]
    said = [(f"What does the customer want? {text}", label) for text, label in NATURAL]
    tasks = group_items([*shown, *said])
    assert [set(task.labels) for task in tasks] == [{"a", "b"}, {"x", "y"}]
    assert all(task.recognise is not None for task in tasks)
    odd = group_items([*shown, *said, ("nothing like it", "z")])
    assert odd[-1].recognise is None and "z" in odd[-1].labels and sum(t.labels.total() for t in odd) == 151


def test_a_pack_is_known_by_texts_labels_and_columns() -> None:
    demo = load_pack("demo")
    items = [(f"你是一个网店客服助手，请判断。\n用户: 第{n}句", "申请退款") for n in range(10)]
    found = find_known_pack(items, DEFAULT_COLUMNS)
    assert found is not None and found.name == demo.name
    assert find_known_pack([(text, "其他") for text, _ in items], DEFAULT_COLUMNS) is None
    assert find_known_pack(items, Columns(id="id", instruction="text", output="label")) is None
