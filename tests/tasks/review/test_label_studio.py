import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from tasks.errors import JudgementError
from tasks.items.images import check_image
from tasks.media import ImageRef
from tasks.records import ReviewCase, content_digest
from tasks.review.label_studio import is_export, make_labelling_config, read_export, write_tasks
from tests.tasks.making import parts

LABELS = ("申请退款", '"查询" & <物流>', "反馈破损")


def case(id: str = "s", *content: str | ImageRef, **fields: Any) -> ReviewCase:
    values: dict[str, Any] = {"labels": LABELS, "given": LABELS[0], "candidate": LABELS[1]}
    return ReviewCase(sample_id=id, parts=parts(*(content or (f"用户: {id}",))), **values | fields)


def annotation(*choices: str, at: str = "2026-03-09T22:16:08.728378Z", **fields: Any) -> dict[str, Any]:
    """As Label Studio 1.23 exports one (fields that aren't read left out)."""
    result = {"id": "cPnIaS1e7v", "from_name": "verdict", "to_name": "dialogue", "type": "choices", "origin": "manual"}
    results = [result | {"value": {"choices": list(choices)}}] if choices else []
    return {"id": 1, "result": results, "was_cancelled": False, "created_at": at, "updated_at": at} | fields


def task(id: str, *annotations: dict[str, Any], **fields: Any) -> dict[str, Any]:
    data = {"item": id, "content": f"{id}1", "given": LABELS[0]}
    return {"id": 1, "data": data, "annotations": list(annotations), "drafts": [], "predictions": [1]} | fields


def exported(tmp_path: Path, *tasks: Any) -> Path:
    (tmp_path / "export.json").write_bytes(orjson.dumps(list(tasks)))
    return tmp_path / "export.json"


def verdicts(tmp_path: Path, *tasks: Any) -> dict[str, str | None]:
    return {answer.id: answer.verdict for answer in read_export(exported(tmp_path, *tasks))}


# --- out


def test_every_task_is_whole_and_named_as_the_configuration_wants(tmp_path: Path) -> None:
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    shown = check_image(tmp_path / "a.png", 10**6)
    cases = [
        case("a", "看<b>这</b>", shown, "和", shown, student={LABELS[1]: 0.5}, teacher={LABELS[1]: 0.9}),
        case("b", candidate=None),
    ]
    configuration = write_tasks(cases, tmp_path / "out" / "tasks.json")
    assert sorted(os.listdir(tmp_path / "out")) == ["tasks.json", "tasks.xml"]
    first, second = orjson.loads((tmp_path / "out" / "tasks.json").read_bytes())
    data = first["data"]
    assert (data["item"], data["given"], data["content"]) == ("a", LABELS[0], content_digest(cases[0]))
    assert data["dialogue"] == "看<b>这</b>[image 1]和[image 2]"
    assert [image["url"].split(",")[0] for image in data["images"]] == ["data:image/webp;base64"] * 2
    (prediction,) = first["predictions"]
    assert prediction["score"] == pytest.approx(0.7)
    (result,) = prediction["result"]
    assert result["value"] == {"choices": [LABELS[1]]}
    assert (second["data"]["candidate"], second["data"]["images"], second["predictions"]) == ("–", [], [])
    # every name that the configuration refers to exists
    root = ElementTree.fromstring(configuration.read_text(encoding="utf-8"))
    names = {element.get("name") for element in root.iter()}
    assert {result["from_name"], result["to_name"]} <= names
    assert {element.get("toName") for element in root.iter()} - {None} <= names
    values = [element.get("value", "") for element in root.iter() if element.tag != "Choice"]
    values += [element.get("on", "") for element in root.iter()]
    assert {name for value in values for name in re.findall(r"\$(\w+)", value)} <= data.keys()


def test_the_labels_stand_in_the_configuration_where_all_items_offer_the_same() -> None:
    root = ElementTree.fromstring(make_labelling_config([case("a"), case("b")]))
    assert [choice.get("value") for choice in root.iter("Choice")] == [*LABELS, "neither"]


def test_else_each_task_brings_its_own(tmp_path: Path) -> None:
    cases = [case("a"), case("b", labels=LABELS[:2])]
    root = ElementTree.fromstring(make_labelling_config(cases))
    assert not list(root.iter("Choice"))
    (choices,) = root.iter("Choices")
    assert choices.get("value") == "$choices"
    write_tasks(cases, tmp_path / "t.json")
    second = orjson.loads((tmp_path / "t.json").read_bytes())[1]
    assert [choice["value"] for choice in second["data"]["choices"]] == [*LABELS[:2], "neither"]


def test_an_image_that_cannot_be_read_is_a_note(tmp_path: Path) -> None:
    lost = ImageRef(path=str(tmp_path / "<lost>.png"), sha256="x", width=1, height=1)
    write_tasks([case("a", lost, "其余")], tmp_path / "t.json")
    (written,) = orjson.loads((tmp_path / "t.json").read_bytes())
    assert written["data"]["dialogue"].startswith("[an image that can't be shown: <lost>.png: ")
    assert written["data"]["dialogue"].endswith("]其余")
    assert written["data"]["images"] == []


def test_no_case_is_an_empty_list(tmp_path: Path) -> None:
    write_tasks([], tmp_path / "t.json")
    assert orjson.loads((tmp_path / "t.json").read_bytes()) == []


# --- and back


def test_an_export_gives_each_items_choice(tmp_path: Path) -> None:
    file = exported(tmp_path, task("a", annotation(LABELS[1])), task("b", annotation("neither")), task("c"))
    assert is_export(file)
    first, second = read_export(file)
    assert (first.id, first.verdict, first.by) == ("a", LABELS[1], None)
    assert (second.verdict, second.given, second.content, second.where) == ("neither", LABELS[0], "b1", "task 2")


def test_a_skipped_task_is_open_and_a_skip_does_not_undo_an_answer(tmp_path: Path) -> None:
    skipped = annotation(at="2026-03-10T00:00:00Z", was_cancelled=True)
    skipped_with_choice = annotation(LABELS[2], at="2026-03-10T00:00:00Z", was_cancelled=True)
    found = verdicts(tmp_path, task("a", skipped), task("b", annotation(LABELS[1]), skipped_with_choice))
    assert found == {"b": LABELS[1]}


def test_of_several_annotations_the_one_updated_last_counts(tmp_path: Path) -> None:
    # as text, the second would come last: its offset makes it the earliest
    late = annotation(LABELS[1], at="2026-03-09T23:00:00Z", created_at="2026-03-01T00:00:00Z")
    early = annotation(LABELS[2], at="2026-03-09T23:30:00+02:00", created_at="2026-03-09T00:00:00Z")
    assert verdicts(tmp_path, task("a", late, early), task("b", early, late)) == {"a": LABELS[1], "b": LABELS[1]}
    twice = verdicts(tmp_path, task("a", late), task("a", early), task("b", early), task("b", late))
    assert twice == {"a": LABELS[1], "b": LABELS[1]}


def test_two_annotators_give_two_answers_with_their_names(tmp_path: Path) -> None:
    ann = annotation(LABELS[1], completed_by={"id": 1, "email": "ann@example.org", "first_name": "Ann"})
    ben = [annotation(label, at=f"2026-03-1{day}T00:00:00Z", completed_by=2) for day, label in enumerate(LABELS)]
    answers = read_export(exported(tmp_path, task("a", ann, *ben)))
    assert [(a.id, a.by, a.verdict) for a in answers] == [
        ("a", "ann@example.org", LABELS[1]),
        ("a", "Label Studio user 2", LABELS[2]),
    ]


def test_a_blind_task_tells_neither_the_given_label_nor_what_models_say(tmp_path: Path) -> None:
    blind = case("a", given="", candidate=None, blind=True, choices=LABELS[:2], disagreed=True)
    write_tasks([blind], tmp_path / "t.json")
    (written,) = orjson.loads((tmp_path / "t.json").read_bytes())
    data = written["data"]
    assert written["predictions"] == []
    assert data["given"] == data["candidate"] == "(hidden for the audit)"
    assert data["reason"] == "Reviewers disagree about this item. (hidden for the audit)"
    assert [choice["value"] for choice in data["choices"]] == [*LABELS, "neither"]
    (answer,) = read_export(exported(tmp_path, {"data": data, "annotations": [annotation(LABELS[0])]}))
    assert (answer.verdict, answer.given) == (LABELS[0], None)


def test_without_a_date_the_one_with_a_date_counts(tmp_path: Path) -> None:
    undated = annotation(LABELS[2], updated_at=None, created_at=None)
    assert verdicts(tmp_path, task("a", annotation(LABELS[1]), undated)) == {"a": LABELS[1]}


def test_results_of_other_controls_are_not_verdicts(tmp_path: Path) -> None:
    noted = annotation(LABELS[1])
    noted["result"].append({"from_name": "notes", "type": "textarea", "value": {"text": ["hm"]}})
    assert verdicts(tmp_path, task("a", noted)) == {"a": LABELS[1]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (task("b", annotation()), "task 2: 0 choices instead of one"),
        (task("b", annotation("x", "y")), "task 2: 2 choices instead of one"),
        ({"id": 3, "item": "b", "verdict": "x"}, r"task 2: is not a task that .*\(data: .* not JSON-MIN"),
        (task("b", annotation("x"), data={"text": "?"}), r"task 2: is not a task that .*\(data: item: "),
        (task("b", annotation() | {"result": "x"}), r"task 2: is not .* \(annotations: 0: result: "),
        (task("b", annotation() | {"result": [{"from_name": "verdict"}]}), "task 2: 0 choices"),
        (
            task("b", annotation() | {"result": [{"from_name": "verdict", "value": {"choices": 1}}]}),
            r"task 2: is not .* \(annotations: 0: result: 0: value: choices: ",
        ),
        (3, r"task 2: is not a task that"),
    ],
)
def test_a_task_that_cannot_be_read_is_named(bad: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(JudgementError, match=rf"export\.json, {message}"):
        verdicts(tmp_path, task("a", annotation(LABELS[1])), bad)


def test_a_torn_export_is_named(tmp_path: Path) -> None:
    file = exported(tmp_path, task("a"))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(JudgementError, match=r"export\.json: Invalid JSON: .*; export the project again"):
        read_export(file)
    with pytest.raises(JudgementError, match=r"none\.json: verdicts can't be read"):
        read_export(tmp_path / "none.json")


def test_verdict_lines_are_no_export(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text('{"id": "a", "verdict": "[x]"}\n')
    assert not is_export(tmp_path / "v.jsonl")
