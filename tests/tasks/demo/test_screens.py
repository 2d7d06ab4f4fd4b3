import json
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from PIL import Image, UnidentifiedImageError

from tasks.demo.dataset import DIALOGUE_LABELS, IMAGE_LABELS, DemoItem, DemoPaths, draw_items, write_demo
from tasks.demo.lessons import CAPTIONS
from tasks.demo.screens import KINDS, draw_screen
from tasks.errors import ConfigError


@pytest.fixture(scope="module")
def items() -> list[DemoItem]:
    return list(draw_items(720, 5))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoPaths:
    return write_demo(tmp_path_factory.mktemp("demo") / "data", 3, labelled=100, unlabelled=40, test=40)


def list_contents(item: DemoItem) -> tuple[object, ...]:
    return (*(v for k, v in vars(item).items() if k != "images"), *(i.tobytes() for i in item.images))


def read_entries(manifest: Path) -> list[dict]:
    return json.loads(manifest.read_text(encoding="utf-8"))


def read_truth(paths: DemoPaths) -> list[dict]:
    return [json.loads(line) for line in paths.truth.read_text(encoding="utf-8").splitlines()]


def test_same_seed_same_bytes_other_seed_other_bytes():
    first, again, other = ([list_contents(i) for i in draw_items(40, seed)] for seed in (1, 1, 2))
    assert first == again
    assert not {line[0] for line in first} & {line[0] for line in other}
    assert [line[4:] for line in first] != [line[4:] for line in other]


def test_every_kind_is_drawn_at_its_size_and_looks_different_each_time():
    for kind in KINDS:
        shots = [draw_screen(kind, Random(i)).image for i in range(5)]
        assert {(s.size, s.mode) for s in shots} == {((112, 168), "RGB")}
        assert len({s.tobytes() for s in shots}) == 5


def test_labels_are_balanced_within_a_task(items: list[DemoItem]):
    for task, labels, share in (("image", IMAGE_LABELS, 396), ("dialogue", DIALOGUE_LABELS, 324)):
        counts = Counter(i.label for i in items if i.task == task)
        assert set(counts) == set(labels)
        assert counts.total() == share
        assert max(counts.values()) - min(counts.values()) <= 1


def test_instructions_fit_their_images_and_offer_their_label(items: list[DemoItem]):
    for item in items:
        assert item.instruction.count("<image>") == len(item.images) <= 3
        assert f'"{item.label}"' in item.instruction
        if item.task == "dialogue":
            body = item.instruction.split("START>\n")[1].split("\n<用户与客服的对话 END>")[0]
            turns = body.split("\n")
            assert 2 <= len(turns) <= 6
            assert turns[-1].startswith("用户: ")
            assert all(t.startswith(("用户: ", "客服: ")) for t in turns)


def test_reasons_are_short_and_differ(items: list[DemoItem]):
    by_label = defaultdict(list)
    for item in items:
        assert 5 <= len(item.reason) <= 40
        by_label[item.label].append(item.reason)
    for label, reasons in by_label.items():
        assert len(set(reasons)) >= 0.4 * len(reasons), label


def test_reasons_quote_what_the_dialogue_says(items: list[DemoItem]):
    for item in items:
        for quoted in (part.split("”")[0] for part in item.reason.split("“")[1:]):
            assert quoted in item.instruction


def test_captions_contain_no_label():
    assert sorted(CAPTIONS) == sorted((*IMAGE_LABELS, *DIALOGUE_LABELS))
    for caption in CAPTIONS.values():
        assert not [label for label in CAPTIONS if label in caption]


def test_the_given_share_of_labels_is_wrong_but_of_the_same_task(demo: DemoPaths):
    truth = read_truth(demo)
    assert Counter(line["split"] for line in truth) == {"labelled": 100, "unlabelled": 40, "test": 40}
    assert sum(line["wrong"] for line in truth) == 12
    for line in truth:
        assert line["wrong"] == (line["given"] not in (None, line["label"]))
        assert (line["given"] is not None) == (line["split"] == "labelled")
        assert line["given"] is None or (line["given"] in KINDS) == (line["label"] in KINDS)
    given = {e["id"]: e["output"] for e in reversed(read_entries(demo.labelled.manifest))}
    assert all(given[line["id"]] == line["given"] for line in truth if line["split"] == "labelled")


def test_only_the_broken_items_are_broken(demo: DemoPaths):
    truth = {line["id"]: line["split"] for line in read_truth(demo)}
    assert len(truth) == 180
    for split, manifest, images in (
        ("labelled", demo.labelled.manifest, demo.labelled.images),
        ("unlabelled", demo.unlabelled.manifest, demo.unlabelled.images),
        ("test", demo.test.manifest, demo.test.images),
    ):
        entries = read_entries(manifest)
        sound, seen = 0, set()
        for entry in entries:
            ok = entry["id"] not in seen and is_readable(entry, images) and truth.get(entry["id"]) == split
            assert ("output" in entry) == (split == "labelled")
            sound += ok
            seen.add(entry["id"])
        assert len(entries) - sound == 6
        assert sound == Counter(truth.values())[split]


def is_readable(entry: dict, images: Path) -> bool:
    names = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    text = entry["instruction"]
    if not isinstance(text, str) or text.count("<image>") != len(names):
        return False
    if "output" in entry and f'"{entry["output"]}"' not in text:
        return False
    try:
        for name in names:
            Image.open(images / name).load()
    except (FileNotFoundError, UnidentifiedImageError, OSError):
        return False
    return True


def test_a_folder_with_the_same_recipe_is_reused_and_another_is_replaced(tmp_path: Path):
    folder = tmp_path / "data"
    paths = write_demo(folder, 1, labelled=20, unlabelled=5, test=5)
    manifest = paths.labelled.manifest.read_bytes()
    born = paths.truth.stat().st_mtime_ns
    write_demo(folder, 1, labelled=20, unlabelled=5, test=5)
    assert paths.truth.stat().st_mtime_ns == born
    write_demo(folder, 2, labelled=20, unlabelled=5, test=5)
    assert paths.labelled.manifest.read_bytes() != manifest
    write_demo(folder, 1, labelled=20, unlabelled=5, test=5)
    assert paths.labelled.manifest.read_bytes() == manifest
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match=r"recipe\.json"):
        write_demo(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
