import random
import re

from tasks.items.cutting import cut_instruction
from tasks.packs.pack_file import TaskPack
from tasks.start.grouping import StarterTask, group_items
from tasks.start.instructions import find_frames

LABELS = ["退款", "物流", "尺码", "材质"]


def find(items: list[tuple[str, str]]) -> list[StarterTask]:
    """The tasks of (text, label), with what their texts share."""
    tasks = group_items(items)
    find_frames(tasks, [text for text, _ in items])
    return tasks


def cut(task: StarterTask, text: str) -> tuple[str, tuple[str, ...] | None]:
    """What intake takes as the item, and as the labels that it offers."""
    found = cut_instruction(text, TaskPack(strip=task.strip, label_list=task.label_list, labels={"a": ""}))  # pyright: ignore
    return "".join(getattr(piece, "text", "<image>") for piece in found.pieces), found.offered


def shuffle(seed: int) -> list[str]:
    return random.Random(seed).sample(LABELS, 4)


def test_a_role_sentence_and_a_list_of_labels_are_cut_out() -> None:
    texts = [
        f"你是一个对话分析专家，请选出意图。\n用户: 第{n}句，你好\n可选的标签：{'、'.join(shuffle(n))}"
        for n in range(40)
    ]
    (task,) = find([(text, LABELS[n % 4]) for n, text in enumerate(texts)])
    assert [cut(task, text) for text in texts] == [(f"用户: 第{n}句，你好", tuple(shuffle(n))) for n in range(40)]


def test_images_keep_their_places_and_labels_without_items_are_known() -> None:
    texts = [f"Picture 1: <image>\nYou are a guide. Choose one of: {[*'abc']}.\nAnswer:" for _ in range(20)]
    (task,) = find([(text, "ab"[n % 2]) for n, text in enumerate(texts)])
    assert cut(task, texts[0]) == ("<image>", ("a", "b", "c"))
    assert task.labels == {"a": 10, "b": 10, "c": 0}


def test_wordings_are_cut_out_each() -> None:
    starts = ("Read this ticket carefully.", "What does the customer want here?")
    texts = [f"{starts[n % 2]}\nword{n} and {n * 7}" for n in range(40)]
    (task,) = find([(text, "ab"[n // 2 % 2]) for n, text in enumerate(texts)])
    assert [cut(task, text)[0] for text in texts] == [f"word{n} and {n * 7}" for n in range(40)]


def test_natural_texts_are_left_as_they_are() -> None:
    texts = [f"您好，请问一下。\n第{n}单" if n % 3 else f"第{n}单的退款、物流呢" for n in range(60)]
    (task,) = find([(text, LABELS[n % 4]) for n, text in enumerate(texts)])
    assert (task.strip, task.label_list) == ([], None)


def test_nothing_is_cut_where_an_item_would_be_left_empty() -> None:
    texts = ["Is this text about the weather?\n" + "rain " * (n % 10) for n in range(40)]
    (task,) = find([(text, "ab"[n % 2]) for n, text in enumerate(texts)])
    assert not any(re.search(pattern, texts[0]) for pattern in task.strip)
