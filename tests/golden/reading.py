"""Reads what runs leave behind and puts it into sections of comparable rows, without what differs between two runs.

A section is a mapping of keys to plain values, in the order of the file that it was read from.
"""

import csv
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas

Section = dict[str, Any]
Sections = dict[str, Section]

PROJECT = Path(__file__).resolve().parents[2]
LEFT_OUT = {
    "approved", "at", "code", "finished_at", "inputs", "made_at", "parent", "recipe", "utilisation", "version",
    "watched", "weight",
}  # fmt: skip
"""Fields that may differ between two runs of the same code: times, and digests of code and configuration."""
PATTERNS = (
    (re.compile(r"probe#[0-9a-f]{12}"), "probe#…"),
    (re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00|Z)?)?( UTC)?"), "<time>"),
    (re.compile(r"\b\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d UTC"), "<time>"),
    (re.compile(r"\b[\d.,]+ (s|min|h|MB|bytes)\b"), "… \\1"),
    (re.compile(r"\([\d,]+ bytes\)"), "(… bytes)"),
    (re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b"), "\\1"),
)
NUMBER = re.compile(r">[\d.,]+<")
"""In a card's page: there are seconds and sizes of files among them, and the card's README.md has the others too."""
BORDER = re.compile(r"[ ─━]{2,}")
"""Of a table on the terminal, whose widths depend on the length of paths."""
SHORT = 12
IN_CLEAR = 3
"""So many rows of a file that is kept in brief are not digests only."""
DECIDED = ("action", "decision", "label")
"""Fields that stay beside the digest."""


class Reader:
    """Reads files below `root`; of values longer than `longest` characters beginning, end and digest are kept.

    Of files whose name below a run's folder begins with one of `brief`, most rows are kept as digests only.
    """

    def __init__(self, root: Path, longest: int = 120, brief: Sequence[str] = ()) -> None:
        self.root = root
        self.longest = longest
        self.brief = tuple(brief)
        self.volatile: dict[str, str] = {}

    def read_run(self, output: Path) -> Sections:
        """Read all files of a run's folder; the first section lists them."""
        self.learn_volatile(output)
        sections: Sections = {"files": {}}
        names = {self._name(file, output): file for file in output.rglob("*") if is_result(file.relative_to(output))}
        for name, file in sorted(names.items()):
            section = self.read_file(file)
            sections["files"][name] = "" if section is None else f"{len(section)} rows"
            if section:
                sections[name] = abridge(section) if name.startswith(self.brief) else section
        return sections

    def read_file(self, file: Path) -> Section | None:
        """Read one file into a section; None for one that is missing, or of a kind whose content isn't compared."""
        if not file.exists():
            return None
        match file.suffix:
            case ".parquet":
                rows = pandas.read_parquet(file).to_dict("records")
                return self._rows(file, [{key: parse_nested(value) for key, value in row.items()} for row in rows])
            case ".json" if file.name == "probe.json":
                return None
            case ".jsonl" if file.name == "provenance.jsonl":
                lines = file.read_text("utf-8").splitlines()
                return {"rows": len(lines), "digest": digest([self.plain(json.loads(line)) for line in lines])}
            case ".jsonl":
                return self._rows(file, [json.loads(line) for line in file.read_text("utf-8").splitlines()])
            case ".csv":
                with file.open(encoding="utf-8", newline="") as opened:
                    return self._rows(file, list(csv.DictReader(opened)))
            case ".json":
                content = json.loads(file.read_text("utf-8"))
                if isinstance(content, list):
                    return self._rows(file, content)
                return {key: self.shorten(value) for key, value in flatten(self.plain(content)).items()}
            case ".html" | ".svg":
                text = self.normalise(file.read_text("utf-8"))
                return {"text": digest(NUMBER.sub(">…<", text) if file.name == "index.html" else text)}
            case ".md" | ".yaml" | ".xml":
                return self.read_text(file.read_text("utf-8"))
            case ".prom":
                lines = file.read_text("utf-8").splitlines()
                return self.read_text("\n".join(line for line in lines if not re.search("second|utilis|# ", line)))
        return None

    def read_text(self, text: str) -> Section:
        """Read a text into its lines."""
        lines = [BORDER.sub(" ", line).rstrip() for line in drop_seconds(self.normalise(text).splitlines())]
        if len(lines) == 1 and lines[0].startswith("{"):
            return self.plain(json.loads(lines[0]))
        if len("".join(lines)) > self.longest * 60:
            return {"text": digest(lines), "lines": len(lines)}
        return {f"line {number}": self.shorten(line) for number, line in enumerate(lines, 1)}

    def read_ledger(self, file: Path) -> Section:
        """Read questions and answers; of each, the beginnings of the question's key and of the digest of both."""
        if not file.exists():
            return {}
        with sqlite3.connect(file) as connection:
            found = connection.execute(
                "SELECT purpose, sample_id, outcome, key, request, generation FROM questions ORDER BY id"
            ).fetchall()
        section: Section = {}
        for purpose, sample_id, outcome, key, request, generation in found:
            question = digest(self.plain(json.loads(request)))
            texts = list(dict.fromkeys(json.loads(generation)["texts"]))
            name = unused(section, f"{purpose} {sample_id}")
            said = "" if outcome == "ok" else f"{outcome} "
            section[name] = f"{said}{key[:8]} {digest([question, *texts])[:8]}"
        return section

    def plain(self, value: Any) -> Any:
        """Make a value JSON-able and comparable."""
        if isinstance(value, dict):
            return {key: self.plain(entry) for key, entry in value.items() if not is_left_out(key)}
        if isinstance(value, numpy.ndarray | list | tuple):
            return [self.plain(entry) for entry in value]
        if isinstance(value, bytes):
            return f"bytes {hashlib.sha256(value).hexdigest()[:SHORT]}"
        if isinstance(value, str):
            return self.normalise(value)
        if isinstance(value, numpy.generic):
            value = value.item()
        if isinstance(value, float):
            return None if value != value else round(value, 7)
        return value

    def normalise(self, text: str) -> str:
        """Take out of a text what differs between two runs."""
        for place, name in ((self.root, "<root>"), (PROJECT, "<project>")):
            text = text.replace(str(place), name)
        for found, name in self.volatile.items():
            text = text.replace(found, name)
        for pattern, name in PATTERNS:
            text = pattern.sub(name, text)
        return text

    def shorten(self, value: Any) -> Any:
        """Keep a long value as its beginning and its digest."""
        text = json.dumps(value, ensure_ascii=False)
        if len(text) <= self.longest:
            return value
        shown = value if isinstance(value, str) else text
        return f"{shown[:12]} … {shown[-48:]} {digest(value)}"

    def _rows(self, file: Path, rows: Sequence[Any]) -> Section:
        """Key each row by source and id, those of an export by the provenance beside it."""
        names = self._provenance(file, len(rows))
        section: Section = {}
        for number, row in enumerate(rows):
            name = names[number] if names else key_of(row, number)
            plain = self.plain(row)
            if isinstance(plain, dict):
                section[unused(section, name)] = self._fields(plain, name)
            else:
                section[unused(section, name)] = self.shorten(plain)
        return section

    def _fields(self, row: Section, name: str) -> Section:
        """Keep the fields that say something which the row's name doesn't."""
        said = set(name.split(" "))
        kept: Section = {}
        for key, value in row.items():
            empty = value is None or value is False or value in ("", [], {})
            told = isinstance(value, str) and (value in said or (key == "source" and Path(value).name in said))
            if not empty and not told:
                kept[key] = self.shorten(value)
        return kept

    def _provenance(self, file: Path, count: int) -> list[str] | None:
        beside = file.with_name("provenance.jsonl")
        if file == beside or not beside.exists():
            return None
        subset = "validation" if file.stem.endswith("_validation") else "train"
        rows = [json.loads(line) for line in beside.read_text("utf-8").splitlines()]
        names = [key_of(row, 0) for row in rows if row["subset"] == subset]
        return names if len(names) == count else None

    def learn_volatile(self, output: Path) -> None:
        """Learn which digests of code and configuration stand in the texts of a run."""
        log = output / "versions" / "versions.jsonl"
        if log.exists():
            for number, line in enumerate(log.read_text("utf-8").splitlines(), 1):
                version = json.loads(line)["version"]
                self.volatile |= {version: f"<version {number}>", version[:12]: f"<version {number}>"}
        for file in output.rglob("record.json"):
            record = json.loads(file.read_text("utf-8"))
            self.volatile |= {record["recipe"]: "<recipe>", record["code"]: "<code>"}
            inputs = [record["content"], *record["inputs"].values()]  # `content` contains the paths of images
            self.volatile |= {text: "<input>" for text in inputs if len(text) > SHORT}
        self.volatile.pop("", None)
        for number, folder in enumerate(sorted(output.glob("correction/students/*"), key=student_key), 1):
            self.volatile[folder.name] = f"student-{number}"

    def _name(self, file: Path, output: Path) -> str:
        return self.normalise(str(file.relative_to(output)))


def student_key(folder: Path) -> str:
    """Order students by what they were trained on, since their folders are named by a digest of the code too."""
    facts = json.loads((folder / "student.json").read_text("utf-8"))
    return f"{facts['fold']} {digest(facts['trained_on'])}"


def is_result(path: Path) -> bool:
    """Tell whether a file holds results: no lock, log or temporary file."""
    return bool(path.suffix) and not any(part.startswith(".") or part == "logs" for part in path.parts)


def key_of(row: Any, number: int) -> str:
    """Name a row by its source's file name and its id; by its place where it has none."""
    fields = row if isinstance(row, dict) else {}
    name = fields.get("sample_id", fields.get("id"))
    if name is None:
        return f"row {number}"
    source = fields.get("source")
    return f"{Path(source).name} {name}" if isinstance(source, str) and "/" in source else str(name)


def unused(section: Section, name: str) -> str:
    """Make a key that is not taken yet."""
    number = 1
    unique = name
    while unique in section:
        number += 1
        unique = f"{name} #{number}"
    return unique


def parse_nested(value: Any) -> Any:
    """Parse a nested field, which a Parquet file holds as JSON text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def digest(value: Any) -> str:
    """Digest of a JSON-able value."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:SHORT]


def abridge(section: Section) -> Section:
    """Keep some rows, and decisions other than `keep`, in clear; of the others what was decided and a digest."""
    if not any(isinstance(value, dict) for value in section.values()):
        return {"entries": len(section), "digest": digest(section)}
    rows: Section = {}
    shown = set(sorted(section)[:IN_CLEAR])  # the same rows whatever their order
    for key, value in section.items():
        fields = value if isinstance(value, dict) else {"value": value}
        in_clear = key in shown or fields.get("action", "keep") != "keep"
        rows[key] = value if in_clear else decide_briefly(fields)
    return rows


def decide_briefly(row: Section) -> str:
    """Say what was decided about a row, and the beginning of the row's digest."""
    said = [str(row[name]) for name in DECIDED if name in row]
    return " ".join([*said, digest(row)[:8]])


def drop_seconds(lines: Iterable[str]) -> Iterator[str]:
    """Take the last column out of tables where it is headed `seconds`."""
    timed = False
    for line in lines:
        in_table = line.startswith("|")
        timed = in_table and (timed or line.endswith("| seconds |"))
        yield line.rstrip("| ").rpartition("|")[0] + "|" if timed else line


def flatten(fields: Section) -> Section:
    """Give the fields of nested objects names of their own."""
    flat: Section = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{key}, {name}": entry for name, entry in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def is_left_out(key: str) -> bool:
    """Tell whether a field may differ between two runs."""
    return key in LEFT_OUT or key.endswith("seconds")


def prefix_sections(prefix: str, sections: Sections) -> Sections:
    """Put a prefix before the names of sections."""
    return {f"{prefix}: {name}": section for name, section in sections.items()}


def select_sections(sections: Sections, names: Iterable[str]) -> Sections:
    """Keep the sections whose names begin with one of `names`."""
    wanted = tuple(names)
    return {name: section for name, section in sections.items() if name.startswith(wanted)}
