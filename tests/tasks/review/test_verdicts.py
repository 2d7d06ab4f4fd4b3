from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from tasks.errors import JudgementError
from tasks.review.verdicts import (
    Imported,
    Settled,
    Verdict,
    import_verdicts,
    read_answers,
    read_store,
    read_verdicts,
    settle_verdicts,
)

LABELS = ("申请退款", "查询物流", "反馈破损")


def written(file: Path, *rows: Any) -> Path:
    file.write_bytes(b"".join((r if isinstance(r, bytes) else orjson.dumps(r)) + b"\n" for r in rows))
    return file


def import_file(store: Path, file: Path, *, ids: str = "abc", content: str = "1", **fields: Any) -> Imported:
    labels = dict.fromkeys(ids, LABELS)
    contents = {i: f"{i}{content}" for i in ids}
    return import_verdicts(store, file, labels, contents, "Ann", givens=dict.fromkeys(ids, LABELS[0]), **fields)


def page_line(id: str, verdict: str | None, **fields: Any) -> dict[str, Any]:
    return {"id": id, "verdict": verdict, "given": LABELS[0], "content": f"{id}1"} | fields


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "review" / "verdicts.jsonl"


def test_a_verdict_keeps_what_was_judged_by_whom_and_when(store: Path, tmp_path: Path) -> None:
    done = import_file(store, written(tmp_path / "v", page_line("a", "查询物流"), {"id": "b", "verdict": "neither"}))
    assert done == Imported(new=("a", "b"), changed=(), same=(), withdrawn=())
    found = {i: verdict for i, (verdict,) in read_store(store).items()}
    assert list(found) == ["a", "b"]
    a = found["a"]
    assert (a.verdict, a.given, a.content, a.by) == ("查询物流", "申请退款", "a1", "Ann")
    assert a.at.endswith("+00:00")
    assert (found["b"].verdict, found["b"].content) == ("neither", "b1")


def test_a_later_verdict_counts_and_the_earlier_stays_in_the_file(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流"), page_line("b", "neither")))
    first = store.read_bytes()
    done = import_file(store, written(tmp_path / "v", page_line("a", "反馈破损"), page_line("b", "neither")))
    assert (done.changed, done.same) == (("a",), ("b",))
    assert [v.verdict for v in read_store(store)["a"]] == ["反馈破损"]
    assert store.read_bytes().startswith(first)
    assert len(store.read_bytes().splitlines()) == 3


def test_the_same_file_again_writes_nothing(store: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "v", page_line("a", "查询物流"))
    import_file(store, file)
    before = store.read_bytes()
    assert import_file(store, file).same == ("a",)
    assert store.read_bytes() == before


def test_a_verdict_can_be_taken_back(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流")))
    back = written(tmp_path / "w", page_line("a", None, withdrawn=True), page_line("b", None, withdrawn=True))
    assert import_file(store, back).withdrawn == ("a",)
    assert read_store(store) == {}
    assert len(store.read_bytes().splitlines()) == 2


def test_open_lines_take_nothing_back(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流")))
    done = import_file(store, written(tmp_path / "w", page_line("a", None), page_line("b", "  "), b""))
    assert done == Imported((), (), (), ())
    assert set(read_store(store)) == {"a"}


BAD = {
    "no JSON": (b'{"id": "b", "verd', r"line 2: not JSON"),
    "no object": ([1], r"line 2: must be a JSON object; save the verdicts again"),
    "no verdict": ({"id": "b"}, r'line 2: needs an "id" and text in "verdict"'),
    "verdict is a number": ({"id": "b", "verdict": 3}, r'line 2: needs an "id" and text'),
    "content is a number": (page_line("b", "neither", content=3), r'line 2: "given", "content" and "by" must be text'),
    "a person is a number": (page_line("b", "neither", by=3), r'line 2: "given", "content" and "by" must be text'),
}


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_line_and_nothing_is_written(bad: str, store: Path, tmp_path: Path) -> None:
    line, message = BAD[bad]
    file = written(tmp_path / "bad.jsonl", page_line("a", "查询物流"), line, page_line("c", "neither"))
    with pytest.raises(JudgementError, match=rf"bad\.jsonl, {message}"):
        import_file(store, file)
    assert not store.exists()


SKIPPED = {
    "left the queue": ({"id": "z", "verdict": "neither"}, "line 2: item z is not in this run's review queue"),
    "no label of its item": (page_line("b", "询问尺码"), "line 2: `询问尺码` is not a label of item b"),
    "changed content": (page_line("b", "neither", content="b0"), "line 2: item b has changed since it was judged"),
    "another given label": (page_line("b", "neither", given="反馈破损"), "line 2: item b was judged when its given"),
}


@pytest.mark.parametrize("changed", SKIPPED)
def test_a_verdict_on_a_changed_item_is_reported_and_the_others_are_taken(
    changed: str, store: Path, tmp_path: Path
) -> None:
    line, message = SKIPPED[changed]
    done = import_file(store, written(tmp_path / "v", page_line("a", "查询物流"), line, page_line("c", "neither")))
    assert done.new == ("a", "c") == tuple(read_store(store))
    (fault,) = done.skipped
    assert fault.startswith(message)


def test_a_file_without_any_verdict_for_the_queue_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgementError, match=r"v, line 1: item z is not in .* name its own run"):
        import_file(store, written(tmp_path / "v", {"id": "z", "verdict": "neither"}))
    assert not store.exists()


def test_the_last_verdict_of_one_person_counts(store: Path, tmp_path: Path) -> None:
    twice = written(tmp_path / "v", page_line("a", "查询物流"), page_line("a", "neither"))
    assert import_file(store, twice).new == ("a",)
    assert [v.verdict for v in read_store(store)["a"]] == ["neither"]


def settle(store: Path) -> Settled:
    return settle_verdicts(read_store(store), dict.fromkeys("abc", LABELS), {i: f"{i}1" for i in "abc"})


def test_verdicts_of_two_people_are_kept_and_a_disagreement_is_not_used(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流"), page_line("b", "neither")))
    ben = written(tmp_path / "w", page_line("a", "反馈破损", by="Ben"), page_line("b", "neither", by="Ben"))
    done = import_file(store, ben)
    assert done.disagreed == ("a",)
    assert [(v.by, v.verdict) for v in read_store(store)["a"]] == [("Ann", "查询物流"), ("Ben", "反馈破损")]
    assert settle(store) == Settled({"b": "neither"}, disagreed=("a",))


def test_a_disagreement_ends_when_one_gives_way_or_a_third_person_decides(store: Path, tmp_path: Path) -> None:
    for verdict, by in (("查询物流", "Ann"), ("反馈破损", "Ben")):
        import_file(store, written(tmp_path / "v", page_line("a", verdict, by=by)))
    import_file(store, written(tmp_path / "v", page_line("a", "反馈破损", by="Cleo")))
    assert settle(store).verdicts == {"a": "反馈破损"}
    import_file(store, written(tmp_path / "v", page_line("a", None, withdrawn=True, by="Cleo")))
    assert settle(store).disagreed == ("a",)
    import_file(store, written(tmp_path / "v", page_line("a", "反馈破损", by="Ann")))
    assert settle(store) == Settled({"a": "反馈破损"})


def test_a_file_that_is_not_there_is_named(store: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgementError, match=r"none\.jsonl: verdicts can't be read: No such file"):
        import_file(store, tmp_path / "none.jsonl")


def test_a_page_of_an_earlier_queue_may_repeat_what_was_imported_but_not_change_it(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流")))
    both = written(tmp_path / "w", page_line("a", "查询物流"), page_line("b", "neither"))
    done = import_file(store, both, ids="bc")
    assert (done.new, done.same) == (("b",), ("a",))
    with pytest.raises(JudgementError, match="item a is not in this run's review queue"):
        import_file(store, written(tmp_path / "w", page_line("a", "反馈破损")), ids="bc")


def test_a_verdict_on_changed_content_is_replaced_by_one_on_the_new(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流")))
    again = written(tmp_path / "w", page_line("a", "查询物流", content="a2"))
    assert import_file(store, again, content="2").changed == ("a",)
    assert [v.content for v in read_store(store)["a"]] == ["a2"]


def test_only_verdicts_on_the_item_as_it_is_are_used() -> None:
    verdicts = {
        i: [Verdict(id=i, content=content, verdict=verdict, given=LABELS[0], at="", by="")]
        for i, content, verdict in [
            ("held", "1", "查询物流"),
            ("unusable", "1", "neither"),
            ("changed", "0", "查询物流"),
            ("relabelled", "1", "询问尺码"),
            ("gone", "1", "查询物流"),
        ]
    }
    now = ("held", "unusable", "changed", "relabelled", "unjudged")
    settled = settle_verdicts(verdicts, dict.fromkeys(now, LABELS), dict.fromkeys(now, "1"))
    assert settled.verdicts == {"held": "查询物流", "unusable": "neither"}
    assert settled.outdated == ("changed", "relabelled")


def test_a_broken_line_of_the_store_is_named_and_the_store_left_alone(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流")))
    store.write_bytes(store.read_bytes() + b"{}\n")
    before = store.read_bytes()
    with pytest.raises(JudgementError, match=r"verdicts\.jsonl, line 2: not a valid verdict"):
        import_file(store, written(tmp_path / "w", page_line("b", "neither")))
    assert store.read_bytes() == before


def test_imports_at_one_time_lose_nothing(store: Path, tmp_path: Path) -> None:
    ids = "abcdefghijklmnop"
    files = [written(tmp_path / i, page_line(i, "neither")) for i in ids]
    with ThreadPoolExecutor(8) as pool:
        for done in pool.map(lambda file: import_file(store, file, ids=ids), files):
            assert len(done.new) == 1
    assert sorted(read_store(store)) == list(ids)


def test_the_store_itself_can_be_imported_elsewhere(store: Path, tmp_path: Path) -> None:
    import_file(store, written(tmp_path / "v", page_line("a", "查询物流"), page_line("b", "neither")))
    assert import_file(tmp_path / "other.jsonl", store).new == ("a", "b")


def test_answers_are_read_through_a_byte_order_mark_and_numbers_as_ids(tmp_path: Path) -> None:
    file = tmp_path / "v"
    file.write_bytes('\ufeff\n{"id": 7, "verdict": " neither "}\n'.encode())
    (answer,) = read_answers(file)
    assert (answer.id, answer.verdict, answer.given, answer.content) == ("7", "neither", None, None)
    assert answer.where == "line 2"


def test_a_file_too_large_for_verdicts_is_not_read_into_memory(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "v", page_line("a", "neither"))
    monkeypatch.setattr("tasks.review.verdicts.MOST_BYTES", file.stat().st_size)
    assert import_file(store, file).new == ("a",)
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(JudgementError, match=r"v: is larger than 0 MiB, too large for verdicts; correct the path"):
        import_file(store, file)


def test_an_id_that_breaks_lines_or_steers_terminals_does_neither(store: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "v", page_line("a\n\x1b[2J", "neither"))
    with pytest.raises(JudgementError, match=r"line 1: item a\\n\\x1b\[2J is not in this run's"):
        import_file(store, file)


# --- a reviewer's file ---------------------------------------------------------------------------------------


def asked(*ids: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(ids, LABELS)


def test_only_the_items_asked_about_are_answered_and_the_last_verdict_counts(tmp_path: Path) -> None:
    rows = [
        {"id": i, "verdict": v} for i, v in (("a", "neither"), ("b", "查询物流"), (7, " 反馈破损 "), ("a", "查询物流"))
    ]
    file = written(tmp_path / "v", *rows, b"")
    assert read_verdicts(file, asked("a", "7", "c")).verdicts == {"a": "查询物流", "7": "反馈破损"}


def test_an_empty_verdict_leaves_the_case_open(tmp_path: Path) -> None:
    file = written(tmp_path / "v", {"id": "a", "verdict": None}, {"id": "b", "verdict": " "})
    assert read_verdicts(file, asked("a", "b")) == Settled({})


def test_verdicts_that_do_not_fit_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [{"id": "a", "verdict": "询问尺码"}, {"id": "z", "verdict": "neither"}, {"id": "b", "verdict": "neither"}]
    found = read_verdicts(written(tmp_path / "v", *rows), asked("a", "b"))
    assert found.verdicts == {"b": "neither"}
    bad_label, unknown = found.skipped
    assert bad_label.startswith("line 1: `询问尺码` is not a label of item a; write one")
    assert unknown == "line 2: item z is not among the items"


def test_people_who_disagree_in_a_file_leave_the_item_open(tmp_path: Path) -> None:
    rows = [{"id": "a", "verdict": v, "by": by} for v, by in (("neither", "Ann"), ("查询物流", "Ben"))]
    found = read_verdicts(written(tmp_path / "v", *rows), asked("a"))
    assert found == Settled({}, disagreed=("a",))


@pytest.mark.parametrize("line", ["{", "[]", '"a"', '{"verdict": "x"}', '{"id": "b"}', '{"id": "b", "verdict": 3}'])
def test_a_line_that_is_no_verdict_is_named(tmp_path: Path, line: str) -> None:
    file = written(tmp_path / "v.jsonl", {"id": "a", "verdict": "neither"}, line.encode())
    with pytest.raises(JudgementError, match=r"v\.jsonl, line 2: .*(verdict|JSON)"):
        read_verdicts(file, asked("a"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JudgementError, match=r"v\.jsonl: verdicts can't be read"):
        read_verdicts(tmp_path / "v.jsonl", {})
