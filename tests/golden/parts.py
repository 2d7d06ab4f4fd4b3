"""The parts of the golden set: each draws its data, runs commands in its folder and reads what they leave."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import yaml
from drawing import DEMO, WWW2025, Drawer, write_csv, write_json, write_lines, write_mix, write_parquet
from reading import PROJECT, Reader, Section, Sections, abridge, decide_briefly, prefix_sections, select_sections

COMMAND = Path(sys.executable).with_name("labelstill")
SHARED = Path(os.environ.get("LABELSTILL_SHARED", PROJECT.parent / "shared"))
START_SECONDS = 240
FORMATS = ["llamafactory", "swift", "swift2", "qwen", "vision_start", "trl", "labels"]
BRIEF = (
    "candidate/kept", "correction/kept", "emit/kept", "emit/left_out", "metrics", "pseudo_labels/labelled",
    "pseudo_labels/predictions", "pseudo_labels/trust", "samples", "versions/<",
    *(f"emit/{name}/" for name in FORMATS),
)  # fmt: skip
"""Files that repeat what others say; most of their rows are kept as digests."""
CAPTIONS_BRIEF = ["versions/<", *(f"emit/{name}/labelstill" for name in FORMATS)]
HASH = {"engine": "scripted", "model": "scripted:hash"}


@contextmanager
def run_server(home: Path) -> Iterator[dict[str, str]]:
    """Keep a Prefect server up on a free port; gives the environment of commands that use it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    home.mkdir()
    environment = os.environ | {
        "COLUMNS": "2000",
        "HF_HUB_OFFLINE": "1",
        "LABELSTILL_SCRIPTED_STANDS_IN_FOR_A_MODEL": "1",
        "DO_NOT_TRACK": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
    }
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start"],
            cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for_server(f"http://127.0.0.1:{port}/api/health", process)
        yield environment
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for_server(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers; raises RuntimeError when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError("the Prefect server did not start")


class Commands:
    """Runs `labelstill` in a part's folder and keeps what it says."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self.reader = Reader(folder, longest=300)
        self.said: Sections = {}

    def run(self, title: str, *words: object) -> None:
        """Run a command; its exit code, its output and its last error line become a section."""
        done = subprocess.run(
            [str(COMMAND), *map(str, words)], cwd=PROJECT, env=self.environment, capture_output=True, text=True
        )
        (self.folder / f"{title}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        if (self.folder / "run").exists():
            self.reader.learn_volatile(self.folder / "run")
        lines = [line for line in done.stdout.splitlines() if not line.startswith(("Using the Prefect", "- `"))]
        if done.returncode not in (0, 1, 3):
            lines += [line for line in done.stderr.splitlines() if line.startswith("error: ")][-1:]
        said = self.reader.read_text("\n".join(lines))
        self.said[f"command {title}"] = {"exit code": done.returncode, **said}


def draw_names(prefix: str, count: int) -> list[str]:
    """Give items their names."""
    return [f"{prefix}{number:02d}" for number in range(count)]


def write_config(file: Path, **settings: Any) -> Path:
    """Write a configuration whose output, ledger and caches lie beside it."""
    folder = file.parent
    places = {name: str(folder / name) for name in ("images", "texts")}
    common = {"output": str(folder / "run"), "ledger": str(folder / "ledger.sqlite"), "shard_size": 20, **places}
    file.write_text(yaml.safe_dump(common | settings, allow_unicode=True), encoding="utf-8")
    return file


def name_source(drawer: Drawer, manifest: str) -> dict[str, str]:
    """Name a set as configurations do."""
    return {"manifest": str(drawer.folder / manifest), "images": str(drawer.images)}


# --- the demo's pack: all stages, review, all formats ---------------------------------------------------------


def run_demo(folder: Path, commands: Commands) -> Sections:
    """All stages of the pack `demo` before and after a person's verdicts, a patch applied and taken back."""
    train = Drawer(DEMO, folder / "train", "train")
    pool = Drawer(DEMO, folder / "pool", "pool")
    held_out = Drawer(DEMO, folder / "held_out", "held out")
    draw_demo(train, pool, held_out)
    mix = write_mix(folder / "mix")
    config = write_config(
        folder / "run.yaml",
        pack="demo",
        seed=5,
        labelled=name_source(train, "x.json"),
        unlabelled=name_source(pool, "manifests"),
        evaluation=name_source(held_out, "x.jsonl"),
        generator={**HASH, "model": "scripted:hash,bad=11"},
        teachers=[
            {"engine": "scripted", "model": "scripted:first", "prices": {"prompt": 1.0, "output": 2.0}},
            HASH,
        ],
        student={"kind": "probe", "folds": 3, "repeats": 2},
        rationales={"support": "with_item", "alike": 0.9, "without_reason": "keep_item"},
        ask={"votes": 3},
        correction={"review_budget": 18, "audit": 10, "gate_level": 0.2},
        pseudo_labels={
            "target_precision": 0.95, "review_budget": 5, "floor": 1, "cap": {"支付页": 3},
        },
        emit={
            "name": "golden", "licence": "cc-by-4.0", "reason_share": 0.8, "validation_share": 0.15, "waiting": "keep",
            "mix": {"file": str(mix), "images": str(mix.parent / "images"), "share": 0.15},
            "export": {"formats": FORMATS, "image_paths": "copy"},
        },
    )  # fmt: skip
    output = folder / "run"
    commands.run("check", "check", config, "--show", 100)
    commands.run("first run", "run", config)
    first = Reader(folder, brief=[*BRIEF, "pseudo_labels"]).read_run(output)
    kept = ["samples", "rationales", "correction/", "pseudo_labels/", "review", "emit/kept", "emit/dropped"]
    sections = prefix_sections("first run", select_sections(first, kept))
    for queue, drawer in (("", train), ("review_pool", pool), ("review_conflicts", train)):
        name = f"import {queue}".strip()
        file = judge_queue(output / queue / "review" / "cases.jsonl", drawer.truth, folder / f"{name}.jsonl")
        commands.run(name, "review", "import", output / queue, file, "--by", "golden")
    commands.run("second run", "run", config)
    second = Reader(folder, brief=["review/", *(name for name in BRIEF if name != "emit/kept")]).read_run(output)
    sections |= prefix_sections("second run", without_same(second, first))
    sections["ledger"] = Reader(folder).read_ledger(folder / "ledger.sqlite")
    commands.run("review list", "review", "list", output)
    commands.run("review export", "review", "export", output, "--to", folder / "tasks.json", "--open")
    commands.run("diff", "diff", "--in", output, "--to", folder / "diff.csv", "--show", 5)
    reader = Reader(folder)
    for file in ("tasks.json", "tasks.xml", "diff.csv"):
        sections[file] = abridge(reader.read_file(folder / file) or {})
    sections["y.json"] = abridge(reader.read_file(output / "correction" / "corrected" / "x.json") or {})
    return {**commands.said, **sections}


def draw_demo(train: Drawer, pool: Drawer, held_out: Drawer) -> None:
    """Draw labelled items as a JSON array, a pool in a folder of all formats, and held-out items as JSON Lines."""
    test = held_out.draw(draw_names("h", 8), labelled=True)
    write_lines(held_out.folder / "x.jsonl", [*test, held_out.copy(test[0], "h00")], b"{", b'"no object"')
    rows = train.draw(draw_names("t", 38), labelled=True, wrong=0.15)
    rows += train.broken("bad")
    rows += [train.copy(rows[0], "t00"), train.copy(rows[1], "same-01")]
    rows.append(train.copy(rows[3], "near-03", instruction=rows[3]["instruction"].replace("请稍等", "请等等")))
    for number in (2, 4, 5):
        others = [row["output"] for row in rows[:12] if is_dialogue(row) == is_dialogue(rows[number])]
        label = next(label for label in others if label != rows[number]["output"])
        rows.append(train.copy(rows[number], f"other-{number:02d}", output=label))
    shutil.copytree(held_out.images, train.images, dirs_exist_ok=True)
    rows.append(train.copy(test[1], "leaked-1"))
    rows.append(train.copy(test[2], "leaked-2"))
    write_json(train.folder / "x.json", rows)
    names = draw_names("p", 28)
    names[3:5] = ["t03", "t04"]
    taken = pool.draw(names, labelled=False)
    shutil.copytree(train.images, pool.images, dirs_exist_ok=True)
    for name in ("t03", "t04"):
        pool.save_picture(name, (120, 90, 60))
    manifests = pool.folder / "manifests"
    manifests.mkdir()
    bad = [row | {"id": f"pool-{row['id']}"} if isinstance(row, dict) and "id" in row else row for row in
           pool.broken("odd")]  # fmt: skip
    write_json(manifests / "a.json", [*taken[:7], *bad[:3], pool.copy(rows[6], "given-06")])
    write_lines(manifests / "b.jsonl", [*taken[7:14], *bad[7:]], b"{", b'{"id": "\xff"}', b"", b"[]")
    write_csv(manifests / "c.csv", taken[14:21], ["too", "few"], ["c-gone", "你是一个网店识图助手 <image>", "c.png"])
    write_parquet(manifests / "d.parquet", [*taken[21:], taken[21]])
    (manifests / "e.txt").write_text("no manifest")


def is_dialogue(row: dict[str, Any]) -> bool:
    """Tell dialogues from images."""
    return row["instruction"].startswith(DEMO.dialogue_role)


def judge_queue(cases: Path, truth: dict[str, str], answers: Path) -> Path:
    """Judge the first two thirds of a queue as a person would who knows the truth, and now and then finds no label."""
    rows = [json.loads(line) for line in cases.read_text("utf-8").splitlines()] if cases.exists() else []
    lines = []
    for row in rows:
        lot = int(hashlib.sha256(row["sample_id"].encode()).hexdigest(), 16) % 9
        label = truth.get(row["sample_id"], "neither")
        if lot < 6:
            lines.append({"id": row["sample_id"], "verdict": label if lot and label in row["labels"] else "neither"})
    write_lines(answers, lines)
    return answers


def without_same(sections: Sections, before: Sections) -> Sections:
    """Leave out the sections that are as they were before."""
    return {name: section for name, section in sections.items() if section != before.get(name)}


# --- the challenge's pack: relabel ----------------------------------------------------------------------------


def run_www2025(folder: Path, commands: Commands) -> Sections:
    """Re-labellings of the pack `www2025` and their diffs: at first, with new items, with another teacher."""
    train = Drawer(WWW2025, folder / "train", "www train")
    pool = Drawer(WWW2025, folder / "pool", "www pool")
    write_csv(train.folder / "x.csv", train.draw(draw_names("t", 20), labelled=True, wrong=0.1))
    rows = pool.draw(draw_names("p", 24), labelled=False)
    manifests = pool.folder / "manifests"
    manifests.mkdir()
    write_parquet(manifests / "first.parquet", rows[:18])
    settings: dict[str, Any] = {
        "pack": "www2025",
        "labelled": name_source(train, "x.csv"),
        "unlabelled": name_source(pool, "manifests"),
        "generator": HASH,
        "teacher": HASH,
        "student": {"kind": "probe", "folds": 2, "images": "none"},
        "rationales": {"support": "reason_alone", "without_reason": "drop_item"},
        "ask": {"votes": 1},
        "correction": {"review_budget": 4, "audit": 4},
        "pseudo_labels": {"target_precision": 0.05},
        "emit": {"near_duplicates": "keep", "waiting": "drop", "export": {"image_paths": "relative"}},
        "drift": {"relabelled": 0.3, "removed": 0.5, "balance": 1.0, "confidence": 1.0},
    }
    output = folder / "run"
    sections: Sections = {}
    config = write_config(folder / "first.yaml", **settings)
    commands.run("first relabel", "relabel", config)
    commands.run("relabel unchanged", "relabel", config)
    first = Reader(folder, brief=BRIEF).read_run(output)
    sections |= prefix_sections("first", select_sections(first, ["emit/kept", "emit/record", "relabel", "versions"]))
    write_lines(manifests / "second.jsonl", rows[18:])
    commands.run("relabel new items", "relabel", config)
    second = Reader(folder, brief=BRIEF).read_run(output)
    sections |= prefix_sections(
        "new items", without_same(second, first | {"candidate/kept.parquet": second.get("emit/kept.parquet")})
    )
    commands.run("diff", "diff", "--in", output, "--to", folder / "diff.jsonl", "--show", 5)
    other = write_config(folder / "other.yaml", **settings | {"teacher": {**HASH, "model": "scripted:first"}})
    commands.run("relabel other teacher", "relabel", other)
    held = Reader(folder, brief=[*BRIEF, "pseudo_labels"]).read_run(output)
    sections |= prefix_sections("other teacher", select_sections(held, ["candidate", "relabel", "pseudo_labels/kept"]))
    commands.run("diff candidate", "diff", output, output / "candidate", "--to", folder / "held.csv", "--show", 5)
    for file in ("diff.jsonl", "held.csv"):
        sections[file] = abridge(Reader(folder).read_file(folder / file) or {})
    sections["ledger"] = Reader(folder).read_ledger(folder / "ledger.sqlite")
    return {**commands.said, **sections}


# --- captions -------------------------------------------------------------------------------------------------


def run_captions(folder: Path, commands: Commands) -> Sections:
    """The pack `captions` from a CSV file, its rewritten card, and a command that is refused."""
    drawer = Drawer(DEMO, folder / "set", "captions")
    rows = []
    for number in range(12):
        colour = drawer.random.choice(list(DEMO.colours.values()))
        file = drawer.save_picture(f"c{number:02d}", colour)
        rows.append({"image_path": file, "caption": f"第{number}张：颜色是{colour}"})
    rows.append({"image_path": "gone.png", "caption": "没有这张图"})
    rows.append({"image_path": "c03.png", "caption": "同一张图的另一句话"})
    rows.append({"image_path": "c04-0.png", "caption": rows[4]["caption"]})
    shutil.copy(drawer.images / "c04.png", drawer.images / "c04-0.png")
    rows.append({"image_path": drawer.save_picture("c99", (9, 9, 9)), "caption": ""})
    write_csv(drawer.folder / "x.csv", rows)
    settings: dict[str, Any] = {"pack": "captions", "labelled": name_source(drawer, "x.csv")}
    emit = {"validation_share": 0.2, "export": {"formats": FORMATS}}
    config = write_config(folder / "run.yaml", **settings, emit=emit)
    commands.run("check", "check", config)
    commands.run("run", "run", config)
    commands.run("card", "card", folder / "run", "--title", "Golden captions", "--licence", "mit")
    commands.run("evaluate without a student", "evaluate", config)
    return {**commands.said, **Reader(folder, longest=400, brief=CAPTIONS_BRIEF).read_run(folder / "run")}


# --- correct --------------------------------------------------------------------------------------------------


def run_correct(folder: Path, commands: Commands) -> Sections:
    """`labelstill find-errors` on drawn probabilities: alone, with a teacher, with verdicts, and refused."""
    random = numpy.random.default_rng(11)
    truth = random.integers(0, 4, 60)
    given = numpy.where(random.random(60) < 0.2, (truth + 1) % 4, truth)
    files = [folder / "one.jsonl", folder / "two.jsonl", folder / "teacher.jsonl"]
    for file, strength in zip(files, (2.0, 2.0, 4.0), strict=True):
        scores = random.normal(size=(60, 4)) + strength * numpy.eye(4)[truth]
        write_probabilities(file, given, numpy.exp(scores) / numpy.exp(scores).sum(1, keepdims=True))
    write_verdicts(folder / "verdicts.jsonl", truth)
    both = ["--probabilities", files[0], "--probabilities", files[1]]
    judged = ["--verdicts", folder / "verdicts.jsonl", "--reviews", 30, "--audit", 15]
    sections: Sections = {}
    for title, words in {
        "alone": both[:2],
        "with a teacher": [*both, "--teacher", files[2], "--teacher-share", 0.3],
        "with verdicts": [
            *both,
            "--teacher",
            files[2],
            "--teacher-share",
            0.3,
            *judged,
            "--seed",
            3,
            "--gate-level",
            0.3,
        ],
        "for a precision": [*both, *judged, "--target-precision", 0.9],
    }.items():
        out = folder / f"{title}.out.jsonl"
        commands.run(title, "find-errors", *words, "--out", out)
        rows = Reader(folder).read_file(out) or {}
        if title == "with verdicts":
            sections[f"decisions {title}"] = {key: list(row.values()) for key, row in rows.items()}
        else:
            sections[f"decisions {title}"] = {key: decide_briefly(row) for key, row in rows.items()}
    commands.run("refused", "find-errors", *both, "--reviews", 3)
    return {**commands.said, **sections}


def run_real_noise(folder: Path, commands: Commands) -> Sections | None:
    """`labelstill find-errors` on real noise; only figures and digests are recorded. None where it is absent."""
    data = SHARED / "data" / "correction" / "cifar10n_aggregate.npz"
    if not data.exists():
        print(f"real_noise: skipped, no {data}")
        return None
    with numpy.load(data, allow_pickle=False) as stored:
        chosen = numpy.sort(numpy.random.default_rng(0).choice(len(stored["given"]), 3000, replace=False))
        given = stored["given"][chosen]
        truth = stored["true"][chosen]
        models = stored["pred_probs"][:3, chosen].astype(float)
    files = [folder / f"model{number}.jsonl" for number in range(3)]
    for file, model in zip(files, models, strict=True):
        write_probabilities(file, given, model / model.sum(-1, keepdims=True))
    write_verdicts(folder / "verdicts.jsonl", truth)
    sections: Sections = {}
    for seed in (0, 1):
        out = folder / f"seed{seed}.out.jsonl"
        words = ["--probabilities", files[0], "--probabilities", files[1], "--seed", seed]
        words += ["--teacher", files[2], "--teacher-share", 0.15]
        words += ["--reviews", 120, "--audit", 100, "--verdicts", folder / "verdicts.jsonl", "--out", out]
        commands.run(f"seed {seed}", "find-errors", *words)
        sections[f"figures of seed {seed}"] = summarise_decisions(out, truth)
    return {**commands.said, **sections}


def write_probabilities(file: Path, given: numpy.ndarray, probabilities: numpy.ndarray) -> None:
    """Write a model's probabilities as `labelstill find-errors` reads them."""
    rows = []
    for number, shares in enumerate(probabilities.round(6).tolist()):
        by_label = {f"class {label}": share for label, share in enumerate(shares) if share > 0}
        rows.append({"id": f"item-{number}", "given": f"class {given[number]}", "probabilities": by_label})
    write_lines(file, rows)


def write_verdicts(file: Path, truth: numpy.ndarray) -> None:
    """Write the truth as a person's verdicts."""
    write_lines(file, [{"id": f"item-{number}", "verdict": f"class {label}"} for number, label in enumerate(truth)])


def summarise_decisions(file: Path, truth: numpy.ndarray) -> Section:
    """Count decisions by action, digest their labels and add up their figures."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    labels = [[row["id"], row["action"], row["label"], row["flagged"], row["reviewed"]] for row in rows]
    text = json.dumps(labels).encode()
    actions = [row["action"] for row in rows]
    sums = {}
    for name in ("p_given", "p_candidate", "p_neither", "suspicion"):
        values = numpy.array([row[name] for row in rows], dtype=float)
        sums[name] = [round(float(values.sum()), 6), round(float((values * numpy.arange(len(rows))).sum()), 3)]
    return {
        "items": len(rows),
        "actions": {action: actions.count(action) for action in sorted(set(actions))},
        "right labels": sum(row["label"] == f"class {label}" for row, label in zip(rows, truth, strict=False)),
        "digest of labels": hashlib.sha256(text).hexdigest(),
        "sums": sums,
    }


PARTS: dict[str, Callable[[Path, Commands], Sections | None]] = {
    "demo": run_demo,
    "www2025": run_www2025,
    "captions": run_captions,
    "correct": run_correct,
    "real_noise": run_real_noise,
}
