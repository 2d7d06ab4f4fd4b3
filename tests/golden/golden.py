"""The golden set: what the product does, recorded as small files, so that a change of its structure can be checked.

    python tests/golden/golden.py record               # write tests/golden/expected
    python tests/golden/golden.py compare [--keep DIR] # run all afresh and print every difference

Everything goes through the `labelstill` command of the environment that runs this script; no module is imported.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts import PARTS, Commands, run_server
from reading import Section, Sections

EXPECTED = Path(__file__).parent / "expected"
TOLERANCE = 1e-6
LONGEST = 200


def main() -> int:
    """Record or compare; returns the exit code."""
    parser = argparse.ArgumentParser(description="Record what labelstill does, or compare it with what was recorded.")
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("--only", choices=tuple(PARTS), help="this part alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder for the runs' files, which stay")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(PARTS)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        return run_parts(arguments.action, names, arguments.keep.resolve())
    with tempfile.TemporaryDirectory(prefix="labelstill-golden-", ignore_cleanup_errors=True) as folder:
        return run_parts(arguments.action, names, Path(folder).resolve())


def run_parts(action: str, names: list[str], root: Path) -> int:
    """Run the parts one after the other, each in a folder of its own; returns the exit code."""
    EXPECTED.mkdir(exist_ok=True)
    differences = 0
    compared = 0
    with run_server(root / "prefect") as environment:
        for name in names:
            began = time.monotonic()
            folder = root / name
            folder.mkdir()
            found = PARTS[name](folder, Commands(environment, folder))
            if found is None:
                continue
            compared += 1
            seconds = time.monotonic() - began
            if action == "record":
                write_sections(EXPECTED / f"{name}.json", found)
                print(f"{name}: recorded, {seconds:.0f} s", flush=True)
                continue
            lines = list(compare_sections(read_sections(EXPECTED / f"{name}.json"), reload_sections(found)))
            differences += len(lines)
            print(f"{name}: {len(lines)} differences, {seconds:.0f} s", flush=True)
            for line in lines:
                print(f"  {line}", flush=True)
    if action == "compare":
        print(f"golden: {compared} parts, {differences} differences")
    return 1 if differences else 0


def write_sections(file: Path, sections: Sections) -> None:
    """Write sections as JSON with a line for each row."""
    blocks = []
    for name, section in sections.items():
        rows = [f"  {dump(key)}: {dump(value)}" for key, value in section.items()]
        blocks.append(f" {dump(name)}: {{\n" + ",\n".join(rows) + "\n }")
    file.write_text("{\n" + ",\n".join(blocks) + "\n}\n", encoding="utf-8")


def read_sections(file: Path) -> Sections:
    """Read what `write_sections` wrote; nothing where there is no file."""
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def reload_sections(sections: Sections) -> Sections:
    """Give sections as they would be read from a file."""
    return json.loads(json.dumps(sections))


def dump(value: Any) -> str:
    """Write a value as compact JSON."""
    return json.dumps(value, ensure_ascii=False)


def compare_sections(expected: Sections, found: Sections) -> Iterator[str]:
    """Say what differs between sections, a line for each difference."""
    yield from (f"{name}: is missing" for name in expected if name not in found)
    yield from (f"{name}: is new" for name in found if name not in expected)
    for name, section in expected.items():
        if name in found:
            yield from (f"{name}: {line}" for line in compare_rows(section, found[name]))


def compare_rows(expected: Section, found: Section) -> Iterator[str]:
    """Say which rows are missing, new or different, and whether those in common stand in another order."""
    for key, value in expected.items():
        if key not in found:
            yield f"{key}: is missing; it was {cut(value)}"
        else:
            yield from (f"{key}{line}" for line in compare_values(value, found[key]))
    for key, value in found.items():
        if key not in expected:
            yield f"{key}: is new: {cut(value)}"
    before = [key for key in expected if key in found]
    after = [key for key in found if key in expected]
    if before != after:
        place = next(number for number, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1])
        yield f"the order of common rows differs from row {place} on: {before[place]} was there, now {after[place]}"


def compare_values(expected: Any, found: Any) -> Iterator[str]:
    """Say where two values differ, fields of objects one by one."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected | found:
            before = expected.get(key)
            after = found.get(key)
            yield from (f", {key}{line}" for line in compare_values(before, after))
    elif not are_equal(expected, found):
        yield f": {cut(expected)} -> {cut(found)}"


def are_equal(expected: Any, found: Any) -> bool:
    """Tell whether two values are the same, numbers within the tolerance."""
    if isinstance(expected, list) and isinstance(found, list):
        same_length = len(expected) == len(found)
        return same_length and all(are_equal(one, other) for one, other in zip(expected, found, strict=True))
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(are_equal(expected[key], found[key]) for key in expected)
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return math.isclose(expected, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return expected == found


def cut(value: Any) -> str:
    """Write a value for people, the beginning of a long one."""
    text = dump(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


if __name__ == "__main__":
    sys.exit(main())
