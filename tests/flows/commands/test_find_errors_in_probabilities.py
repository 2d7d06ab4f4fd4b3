"""`labelstill find-errors --probabilities`, called through the entry point of the installed command."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.commands.main import app, main
from flows.service.server import read_prefect_environment
from tasks.correction.decide import Adjudicator, correct
from tasks.correction.judgements import read_probabilities, read_teacher
from tasks.correction.settings import CorrectionSettings
from tasks.records import content_digest
from tasks.review.queue import PAGE, STORE, read_queue
from tests.benchmarks.correction.noisy_sets import Files, NoisySet, write
from tests.benchmarks.correction.students import Student
from tests.recordings import draw_numbered_frame, draw_recording
from tests.stub_server import ROOT
from tests.tasks.correction.judging import answer_nothing, make_noisy_set

FIELDS = {"id", "given", "flagged", "reviewed", "action", "label", "p_given", "p_candidate", "p_neither", "suspicion"}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture
def find_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`labelstill find-errors …` in this process."""
    # `main` sets missing variables; set here, they are restored after the test.
    for name, value in read_prefect_environment(ROOT).items():
        monkeypatch.setenv(name, os.environ.get(name, value))

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["labelstill", "find-errors", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        result = capsys.readouterr()
        return Result(code if isinstance(code, int) else 0, result.out, result.err)

    return call


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


# --- faults --------------------------------------------------------------------------------------------------

Lines = dict[str, list[str]]
"""The lines of each input: p and q (probabilities), t (teacher), v (verdicts)."""


def make_row(id: str, given: str = "a", **probabilities: float) -> str:
    return json.dumps({"id": id, "given": given, "probabilities": probabilities or {"a": 0.25, "b": 0.75}})


def write_valid_files() -> Lines:
    ids = [f"x{i}" for i in range(8)]
    verdicts = [json.dumps({"id": i, "verdict": v}) for i, v in (("x1", "a"), ("x2", "b"), ("x3", "neither"))]
    return {name: [make_row(i) for i in ids] for name in "pqt"} | {"v": verdicts}


def replace_lines(name: str, number: int, *lines: str) -> Callable[[Lines], None]:
    """Puts `lines` in the place of line `number` of a file."""

    def change(files: Lines) -> None:
        files[name][number - 1 : number] = lines

    return change


def empty_file(name: str) -> Callable[[Lines], None]:
    return lambda files: files[name].clear()


def make_verdict(id: object, label: object) -> str:
    return json.dumps({"id": id, "verdict": label})


FAULTS = {
    "missing in the second file": (replace_lines("q", 4), ["q.jsonl", "'x3'", "missing"]),
    "missing in the first file": (replace_lines("p", 4), ["q.jsonl", "'x3'"]),
    "NaN": (replace_lines("p", 3, make_row("x2", a=float("nan"), b=1)), ["p.jsonl, line 3", "NaN"]),
    "null for NaN": (replace_lines("p", 3, make_row("x2", a=None)), ["p.jsonl, line 3", "'x2'", "'a'"]),  # type: ignore[arg-type]
    "infinite": (replace_lines("p", 3, make_row("x2", a=float("inf"), b=1)), ["p.jsonl, line 3", "Infinity"]),
    "too large for a number": (
        replace_lines("p", 3, make_row("x2").replace("0.75", "1e999")),
        ["p.jsonl, line 3", "infinity"],
    ),
    "negative": (replace_lines("q", 3, make_row("x2", a=-0.1, b=1.1)), ["q.jsonl, line 3", "'x2'", "'a'", "-0.1"]),
    "all zero": (replace_lines("q", 8, make_row("x7", a=0, b=0.0)), ["q.jsonl, line 8", "'x7'", "add up to 0"]),
    "no probabilities": (replace_lines("p", 1, json.dumps({"id": "x0", "given": "a"})), ["p.jsonl, line 1", "'x0'"]),
    "no given label": (
        replace_lines("p", 2, make_row("x1").replace('"given"', '"was"')),
        ["p.jsonl, line 2", "'x1'", "given"],
    ),
    "an id twice": (replace_lines("p", 5, make_row("x4"), make_row("x2")), ["p.jsonl, line 6", "'x2'", "twice"]),
    "another given label": (
        replace_lines("q", 5, make_row("x4", "b")),
        ["q.jsonl", "'x4'", "given label", "p.jsonl"],
    ),
    "not JSON": (replace_lines("q", 2, make_row("x1")[:-4]), ["q.jsonl, line 2", "not JSON"]),
    "no object": (replace_lines("p", 2, '["x1", "a"]'), ["p.jsonl, line 2", "JSON object"]),
    "not UTF-8": (replace_lines("p", 2, make_row("x1").replace("x1", "\udcff")), ["p.jsonl, line 2", "not JSON"]),
    "empty first file": (empty_file("p"), ["p.jsonl", "contains no items"]),
    "empty second file": (empty_file("q"), ["q.jsonl", "contains no items"]),
    "a verdict that is no text": (replace_lines("v", 3, make_verdict("x4", 1)), ["v.jsonl, line 3", '"verdict"']),
    "verdicts that are not JSON": (replace_lines("v", 2, "{"), ["v.jsonl, line 2", "not JSON"]),
    "teacher lacks an item": (replace_lines("t", 8), ["t.jsonl", "'x7'", "missing"]),
    "teacher knows another item": (replace_lines("t", 8, make_row("x7"), make_row("x8")), ["t.jsonl", "'x8'"]),
    "teacher says NaN": (replace_lines("t", 8, make_row("x7", a=float("nan"))), ["t.jsonl, line 8", "NaN"]),
    "teacher says nothing": (replace_lines("t", 8, make_row("x7", a=0)), ["t.jsonl, line 8", "'x7'", "add up to 0"]),
    "empty teacher file": (empty_file("t"), ["t.jsonl", "contains no items"]),
}


def arguments(folder: Path, out: Path) -> list[object]:
    return [
        *(
            "--probabilities",
            folder / "p.jsonl",
            "--probabilities",
            folder / "q.jsonl",
            "--teacher",
            folder / "t.jsonl",
        ),
        *("--reviews", 4, "--verdicts", folder / "v.jsonl", "--out", out),
    ]


def assert_refused(command: Command, folder: Path, given: list[object], words: Sequence[str]) -> None:
    """Exit code 2, one line on standard error with these words; no OUT is made, and one that is there stays."""
    out = folder / "out.jsonl"
    for before in (None, b"from before\n"):
        if before:
            out.write_bytes(before)
        there = sorted(folder.iterdir())
        result = command(*given)
        assert result.code == 2, result
        assert result.out == "" and "Traceback" not in result.err
        assert result.err.startswith("error: ") and len(result.err.splitlines()) == 1
        assert all(word in result.err for word in words), result.err
        assert sorted(folder.iterdir()) == there
        assert not before or out.read_bytes() == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, lines in write_valid_files().items():
        (tmp_path / f"{name}.jsonl").write_text("".join(each + "\n" for each in lines))
    return tmp_path


def test_the_files_without_faults_are_valid(folder: Path, find_errors: Command) -> None:
    result = find_errors(*arguments(folder, folder / "out.jsonl"))
    assert result.code == 0 and result.err == ""
    assert [r["id"] for r in read_rows(folder / "out.jsonl")] == [f"x{i}" for i in range(8)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_file_is_one_clear_line_and_nothing_is_written(
    fault: str, folder: Path, find_errors: Command
) -> None:
    change, words = FAULTS[fault]
    files = write_valid_files()
    change(files)
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_bytes("".join(each + "\n" for each in lines).encode(errors="surrogateescape"))
    assert_refused(find_errors, folder, arguments(folder, folder / "out.jsonl"), words)


@pytest.mark.parametrize("name", "pqtv")
def test_a_file_that_is_not_there_is_named(name: str, folder: Path, find_errors: Command) -> None:
    (folder / f"{name}.jsonl").unlink()
    assert_refused(find_errors, folder, arguments(folder, folder / "out.jsonl"), [f"{name}.jsonl", "No such file"])


def test_a_folder_instead_of_a_file_is_named(folder: Path, find_errors: Command) -> None:
    (folder / "q.jsonl").unlink()
    (folder / "q.jsonl").mkdir()
    assert_refused(find_errors, folder, arguments(folder, folder / "out.jsonl"), ["q.jsonl", "directory"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["run.yaml", "--probabilities", "p.jsonl", "--out", "out.jsonl"], ["run.yaml", "only one of them"]),
        (["--probabilities", "p.jsonl"], ["--probabilities needs --out"]),
        (["--reviews", 3], ["--reviews needs --probabilities"]),
        (["run.yaml", "--gate-level", 0.3], ["--gate-level needs --probabilities"]),
        (["--images", "."], ["--images needs --probabilities"]),
    ],
)
def test_options_that_do_not_go_together(
    given: list[object], words: list[str], folder: Path, find_errors: Command
) -> None:
    assert_refused(find_errors, folder, given, words)


def test_verdicts_are_checked_even_if_none_is_used(folder: Path, find_errors: Command) -> None:
    (folder / "v.jsonl").write_text(make_verdict("nobody", "a") + "\n")
    given = ["--probabilities", folder / "p.jsonl", "--verdicts", folder / "v.jsonl", "--out", folder / "out.jsonl"]
    assert_refused(find_errors, folder, given, ["v.jsonl, line 1", "nobody"])


def test_verdicts_that_do_not_fit_are_named_and_the_others_are_used(folder: Path, find_errors: Command) -> None:
    lines = [make_verdict("gone", "a"), make_verdict("x1", "a"), make_verdict("x2", "c"), make_verdict("x1", "b")]
    lines += [json.dumps({"id": "x3", "verdict": v, "by": by}) for v, by in (("a", "Ann"), ("b", "Ben"))]
    (folder / "v.jsonl").write_text("\n".join(lines))
    result = find_errors(*arguments(folder, folder / "out.jsonl"))
    rows = {r["id"]: r for r in read_rows(folder / "out.jsonl")}
    assert [i for i, r in rows.items() if r["reviewed"]] == ["x1"] and rows["x1"]["label"] == "b"
    assert "not used: line 1: item gone is not among the items" in result.err
    assert "not used: line 3: `c` is not a label of item x2" in result.err
    assert "not used: item x3: reviewers disagree" in result.err


def test_the_process_ends_with_2_and_one_line(folder: Path) -> None:
    (folder / "q.jsonl").write_text(make_row("x0") + "\n{\n")
    given = map(str, arguments(folder, folder / "out.jsonl"))
    words = [sys.executable, "-m", "flows.commands.main", "find-errors", *given]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{folder / 'q.jsonl'}, line 2: not JSON" in done.stderr
    assert not (folder / "out.jsonl").exists()


# --- what comes out ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> NoisySet:
    students = (Student(blur=0.8), Student(blur=0.8, kin=0.5))
    return make_noisy_set(
        "human-like", 0.2, students=students, teacher=Student("zero-shot", 0.3), unusable=0.05, items=400
    )


@pytest.fixture
def files(made: NoisySet, tmp_path: Path) -> Files:
    return write(made, tmp_path)


def options(files: Files, out: Path, *, reviews: int = 60, teacher: bool = True, seed: int = 0) -> list[object]:
    given: list[object] = [word for path in files.probabilities for word in ("--probabilities", path)]
    given += ["--teacher", files.teacher] if teacher else []
    given += ["--reviews", reviews, "--verdicts", files.verdicts] if reviews else []
    return [*given, "--seed", seed, "--out", out]


@pytest.mark.parametrize(("reviews", "teacher"), [(0, False), (0, True), (15, False), (60, True), (500, True)])
def test_the_output_has_the_documented_fields(
    reviews: int, teacher: bool, files: Files, tmp_path: Path, find_errors: Command
) -> None:
    out = tmp_path / "new folder" / "out.jsonl"
    result = find_errors(*options(files, out, reviews=reviews, teacher=teacher))
    assert result.code == 0 and len(result.out.splitlines()) == 1
    assert "100 items to review" in result.err if not reviews else result.err == ""
    rows, asked = read_rows(out), read_rows(files.probabilities[0])
    assert [(r["id"], r["given"]) for r in rows] == [(r["id"], r["given"]) for r in asked]
    truth = {r["id"]: r["verdict"] for r in read_rows(files.verdicts)}
    for r in rows:
        assert r.keys() == FIELDS
        assert type(r["flagged"]) is bool and type(r["reviewed"]) is bool
        same = r["label"] == r["given"]
        assert {"keep": same, "review": same, "drop": r["label"] is None}.get(r["action"], not same and r["label"])
        figures = [r["p_given"], r["p_candidate"], r["p_neither"]]
        assert all(0 <= p <= 1 for p in figures) and sum(figures) == pytest.approx(1)
        if r["reviewed"]:
            expected = "drop" if truth[r["id"]] == "neither" else "keep" if truth[r["id"]] == r["given"] else "relabel"
            assert (r["action"], r["label"]) == (expected, None if expected == "drop" else truth[r["id"]])
            assert r["flagged"] == (expected != "keep")
        else:
            assert r["action"] != "drop" and (r["flagged"] or r["action"] != "review")
    summary = result.summary
    assert summary["items"] == 400
    assert summary["reviews"] == sum(r["reviewed"] for r in rows) == min(reviews, 400)
    assert summary["flagged"] == sum(r["flagged"] for r in rows)
    assert (0 < summary["teacher_calls"] <= 100) if teacher else (summary["teacher_calls"] == 0)
    assert all(summary.get(a, 0) == sum(r["action"] == a for r in rows) for a in ("keep", "relabel", "drop", "review"))
    assert not list(out.parent.glob(".*"))


def test_suspicion_is_higher_where_labels_are_wrong(
    files: Files, made: NoisySet, tmp_path: Path, find_errors: Command
) -> None:
    find_errors(*options(files, tmp_path / "out", reviews=0, teacher=False))
    suspicion = [r["suspicion"] for r in read_rows(tmp_path / "out")]
    wrong = [s for s, g, t in zip(suspicion, made.given, made.truth, strict=True) if g != t]
    right = [s for s, g, t in zip(suspicion, made.given, made.truth, strict=True) if g == t]
    above = sum(w > r for w in wrong for r in right) / (len(wrong) * len(right))
    assert above > 0.8  # the area under the ROC curve; 0.5 without any sense


def test_with_no_reviews_no_verdict_is_looked_at(files: Files, tmp_path: Path, find_errors: Command) -> None:
    find_errors(*options(files, tmp_path / "without", reviews=0))
    result = find_errors(*options(files, tmp_path / "with", reviews=0), "--verdicts", files.verdicts, "--reviews", 0)
    assert result.summary["reviews"] == 0
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()


def test_verdicts_beyond_the_reviewed_items_are_not_used(
    files: Files, made: NoisySet, tmp_path: Path, find_errors: Command
) -> None:
    result = find_errors(*options(files, tmp_path / "out"))
    assert result.summary["reviews"] == 60
    rows = read_rows(tmp_path / "out")
    seen = {r["id"] for r in rows if r["reviewed"]}
    assert len(seen) == 60
    truth = read_rows(files.verdicts)
    wrong = [r if r["id"] in seen else r | {"verdict": random.Random(r["id"]).choice(made.names)} for r in truth]
    none = [r for r in truth if r["id"] in seen]
    for poisoned in (wrong, none, truth[::-1]):
        write_rows(files.verdicts, poisoned)
        assert find_errors(*options(files, tmp_path / "again")) == result
        assert (tmp_path / "again").read_bytes() == (tmp_path / "out").read_bytes()
    write_rows(files.verdicts, [r | {"verdict": "neither"} for r in truth])
    find_errors(*options(files, tmp_path / "again"))
    assert [r["action"] for r in read_rows(tmp_path / "again")].count("drop") == 60


def test_asked_items_without_a_verdict_are_not_reviewed_and_stay_within_the_budget(
    files: Files, tmp_path: Path, find_errors: Command
) -> None:
    truth = read_rows(files.verdicts)
    write_rows(files.verdicts, truth[::2])
    result = find_errors(*options(files, tmp_path / "out"))
    reviewed = [r["id"] for r in read_rows(tmp_path / "out") if r["reviewed"]]
    assert result.summary["reviews"] == 60 and result.summary["verdicts"] == len(reviewed)
    assert 0 < len(reviewed) < 60 and set(reviewed) <= {r["id"] for r in truth[::2]}


def test_the_teacher_is_used_on_the_suspicious_items_only(files: Files, tmp_path: Path, find_errors: Command) -> None:
    assert files.teacher
    result = find_errors(*options(files, tmp_path / "out"))
    judgements = read_probabilities(files.probabilities)
    teacher_table = read_teacher(files.teacher, judgements)
    teacher = Adjudicator(lambda items: teacher_table[items])
    asked = correct(judgements, CorrectionSettings(review_budget=0), [teacher], answer_nothing).asked[0]
    assert result.summary["teacher_calls"] == len(asked) == 100
    suspicious = {judgements.ids[i] for i in asked.tolist()}
    right = read_rows(files.teacher)

    def poisoned(only: Callable[[str], bool]) -> bytes:
        # All the weight on one label, and one that the items do not have.
        poison = {"probabilities": {judgements.labels[0]: 0.6, "poison": 0.4}}
        write_rows(files.teacher, [r | poison if only(r["id"]) else r for r in right][::-1])  # type: ignore[arg-type]
        find_errors(*options(files, tmp_path / "again"))
        return (tmp_path / "again").read_bytes()

    assert poisoned(lambda id: id not in suspicious) == (tmp_path / "out").read_bytes()
    assert poisoned(lambda id: id in suspicious) != (tmp_path / "out").read_bytes()


def test_the_same_seed_gives_the_same_file_and_another_seed_another_audit(
    files: Files, tmp_path: Path, find_errors: Command
) -> None:
    first = find_errors(*options(files, tmp_path / "1"))
    assert find_errors(*options(files, tmp_path / "2")) == first
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    find_errors(*options(files, tmp_path / "3", seed=1))
    reviewed = [{r["id"] for r in read_rows(tmp_path / name) if r["reviewed"]} for name in "13"]
    assert reviewed[0] != reviewed[1]


def test_the_layout_of_the_files_does_not_matter(files: Files, tmp_path: Path, find_errors: Command) -> None:
    """Lines of other files in another order, extra fields, probabilities not normalised, zeros written out."""
    find_errors(*options(files, tmp_path / "out"))
    first, second = (read_rows(path) for path in files.probabilities)
    labels = sorted({label for r in first for label in r["probabilities"]})
    # Times a power of two, so that renormalising gives the same float; in the same order of labels for the same reason.
    write_rows(files.probabilities[0], [r | {"fold": 2, "model": "m", "x": None} for r in first])
    write_rows(
        files.probabilities[1],
        [r | {"probabilities": {k: 8 * r["probabilities"].get(k, 0) for k in labels}} for r in second][::-1],
    )
    find_errors(*options(files, tmp_path / "again"))
    before, after = read_rows(tmp_path / "out"), read_rows(tmp_path / "again")
    figures = ("p_given", "p_candidate", "p_neither", "suspicion")
    assert [{k: v for k, v in r.items() if k not in figures} for r in before] == [
        {k: v for k, v in r.items() if k not in figures} for r in after
    ]
    for name in figures:
        assert [r[name] for r in before] == pytest.approx([r[name] for r in after], abs=1e-4)


def test_a_higher_target_precision_flags_fewer(files: Files, tmp_path: Path, find_errors: Command) -> None:
    flagged = [
        find_errors(*options(files, tmp_path / "out"), "--target-precision", p).summary["flagged"]
        for p in (0.3, 0.6, 0.9)
    ]
    assert flagged[0] > flagged[1] > flagged[2] > 0


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("labels", ["a", "ab"])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_tiny_files(count: int, labels: str, p: float, tmp_path: Path, find_errors: Command) -> None:
    rows = [
        {"id": f"x{i}", "given": "a", "probabilities": {"a": p, "b": 1 - p} if "b" in labels else {"a": 1}}
        for i in range(count)
    ]
    file = write_rows(tmp_path / "p", rows)
    verdicts = write_rows(tmp_path / "v", [{"id": f"x{i}", "verdict": labels[-1]} for i in range(count)])
    given = ["--probabilities", file, "--teacher", file, "--out", tmp_path / "out"]
    assert find_errors(*given).code == 0
    assert [r["label"] for r in read_rows(tmp_path / "out")] == ["a"] * count
    result = find_errors(*given, "--reviews", 10, "--verdicts", verdicts)
    assert result.summary["reviews"] == count
    assert [r["label"] for r in read_rows(tmp_path / "out")] == [labels[-1]] * count


# --- the review queue ------------------------------------------------------------------------------------------


@pytest.fixture
def shown(files: Files, tmp_path: Path) -> Files:
    """The same probabilities; each line of the first file also has a text, and one or two images."""
    images = tmp_path / "images"
    images.mkdir()
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(images / name)
    rows = read_rows(files.probabilities[0])
    names = ["red.png", ["red.png", "blue.png"]]
    write_rows(
        files.probabilities[0], [r | {"text": f"text of {r['id']}", "image": names[n % 2]} for n, r in enumerate(rows)]
    )
    return files


def test_without_verdicts_the_queue_and_its_page_are_written(
    shown: Files, tmp_path: Path, find_errors: Command
) -> None:
    out = tmp_path / "run" / "out.jsonl"
    images = ["--images", tmp_path / "images"]
    result = find_errors(*options(shown, out, reviews=0), *images, "--reviews", 30, "--audit", 10)
    cases = read_queue(out.parent / "review")
    assert len(cases) == 30 and [case.blind for case in cases] == [True] * 10 + [False] * 20
    assert all(case.parts[-1].type == "text" and case.parts[-1].text == f"text of {case.sample_id}" for case in cases)
    assert {len(case.parts) for case in cases} == {2, 3}
    assert any("teacher, asked blind" in case.why for case in cases)
    page = (out.parent / "review" / PAGE).read_text(encoding="utf-8")
    assert f"text of {cases[0].sample_id}" in page and page.count("data:image/webp") == 2
    assert str(out.parent / "review" / PAGE) in result.err and result.summary["reviews"] == 0


def test_the_page_shows_recordings(files: Files, tmp_path: Path, find_errors: Command) -> None:
    draw_recording(tmp_path / "clip.mp4")
    for number in range(4):
        draw_numbered_frame(number).save(tmp_path / f"{number}.png")
    names = ["clip.mp4", [f"{number}.png" for number in range(4)]]
    rows = read_rows(files.probabilities[0])
    write_rows(files.probabilities[0], [row | {"video": names[n % 2]} for n, row in enumerate(rows)])
    out = tmp_path / "run" / "out.jsonl"
    find_errors(*options(files, out, reviews=0), "--images", tmp_path, "--reviews", 30)
    videos = [part.video for case in read_queue(out.parent / "review") for part in case.parts if part.type == "video"]
    assert len(videos) == 30 and {len(video.frames) for video in videos} == {4}
    assert (out.parent / "review" / PAGE).read_text(encoding="utf-8").count("data:video/mp4") == 1


def test_all_verdicts_on_the_queue_are_used(shown: Files, tmp_path: Path, find_errors: Command) -> None:
    """From the file that the page saves, and from the one to which `labelstill review import` writes."""
    out = tmp_path / "run" / "out.jsonl"
    find_errors(*options(shown, out, reviews=0))
    before = out.read_bytes()
    truth = {r["id"]: r["verdict"] for r in read_rows(shown.verdicts)}
    cases = read_queue(out.parent / "review")
    saved = [
        {"id": c.sample_id, "content": content_digest(c), "given": c.given, "verdict": truth[c.sample_id]}
        for c in cases
    ]
    page = write_rows(tmp_path / "saved.jsonl", saved)
    result = find_errors(*options(shown, out, reviews=0), "--verdicts", page)
    assert result.summary["reviews"] == result.summary["verdicts"] == len(cases) == 100
    rows = {r["id"]: r for r in read_rows(out)}
    assert {i for i, r in rows.items() if r["reviewed"]} == {c.sample_id for c in cases} and out.read_bytes() != before
    withdrawn = write_rows(tmp_path / "withdrawn.jsonl", [saved[0] | {"verdict": None, "withdrawn": True}])
    for file in (page, withdrawn):
        CliRunner().invoke(app, ["review", "import", str(out.parent), str(file)], catch_exceptions=False)
    result = find_errors(*options(shown, out, reviews=0), "--verdicts", out.parent / "review" / STORE)
    assert result.summary["verdicts"] == 99
    assert not {r["id"]: r for r in read_rows(out)}[cases[0].sample_id]["reviewed"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"text": 5}, ["p.jsonl, line 2: item 'x1'", '"text" is a number']),
        ({"image": "gone.png"}, ["p.jsonl, line 2: item 'x1'", "gone.png"]),
        ({"image": {"path": "a"}}, ["p.jsonl, line 2: item 'x1'", "expected file names"]),
        ({}, ['p.jsonl: no item to review has an "image"']),
    ],
)
def test_an_item_that_cannot_be_shown_is_named(
    changed: dict[str, object], words: list[str], folder: Path, find_errors: Command
) -> None:
    rows = [json.loads(line) for line in write_valid_files()["p"]]
    rows[1] |= changed
    write_rows(folder / "p.jsonl", rows)
    given = ["--probabilities", folder / "p.jsonl", "--images", folder, "--out", folder / "out.jsonl"]
    assert_refused(find_errors, folder, given, words)
