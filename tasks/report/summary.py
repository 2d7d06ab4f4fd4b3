"""Summarise a run at its end: what was read, found and changed, where the files are, and what to type next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.correction.outcome import SUSPICIOUS, describe_agreement
from tasks.evaluation.table import TRANSDUCTIVE
from tasks.report.card.facts import Facts, read_facts
from tasks.report.card.warnings import is_transductive, list_warnings
from tasks.review.queue import read_queue
from tasks.storage.html import format_count

_MAX_WARNINGS = 6
_PAGES = (
    ("card", "card/index.html"),
    ("review page", "review/review.html"),
    ("review of reasons", "review_reasons/review/review.html"),
    ("pool review", "review_pool/review/review.html"),
    ("report on labels", "correction/report.html"),
)


@dataclass(frozen=True)
class Summary:
    """What a run did, as lines for people. Each result and each file is a pair of name and text."""

    results: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    next_steps: tuple[tuple[str, str], ...]
    """Pairs of a command and what it does."""

    def to_text(self) -> str:
        """Return the summary for a terminal."""
        lines = _align(self.results)
        warnings = [(warning, "") for warning in self.warnings]
        for heading, rows in (("Warnings", warnings), ("Files", self.files), ("Next", self.next_steps)):
            if rows:
                lines += ["", heading, *_align(rows, indent=2)]
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Return the summary for the web UI."""
        lines = ["| | |", "|---|---|", *(f"| **{name}** | {text} |" for name, text in self.results), ""]
        lines += [f"- warning: {warning}" for warning in self.warnings]
        lines += [f"- {name}: `{path}`" for name, path in self.files]
        lines += [f"- next: `{command}` {what}" for command, what in self.next_steps]
        return "\n".join(lines)


def summarize_run(output: Path, licence: str | None = None, compared: Sequence[tuple[str, str]] = ()) -> Summary:
    """Summarise the run under `output` from its files. The lines in `compared` are added after the results."""
    facts = read_facts(output)
    warnings = [*([TRANSDUCTIVE] if is_transductive(facts) else []), *list_warnings(facts, licence)]
    if len(warnings) > _MAX_WARNINGS:
        hidden = len(warnings) - _MAX_WARNINGS + 1
        warnings = [*warnings[:-hidden], f"{hidden} more warnings are on the card."]
    return Summary(
        results=(*_describe_results(facts), *compared),
        warnings=tuple(warnings),
        files=tuple(_list_files(output, facts)),
        next_steps=tuple(_list_next_steps(output, facts)),
    )


def summarize_search(output: Path, config: Path) -> Summary:
    """Summarise a search for wrong labels (`labelstill find-errors`) under `output` from its files."""
    facts = read_facts(output)
    record = facts.records["correction"]
    differ, flagged, changed, unreviewed, waiting = (
        int(facts.find_figure("correction", name) or 0)
        for name in ("disagreements", "flagged", "relabelled", "relabelled without a person", "waiting for review")
    )
    agreement, advice = describe_agreement(record.read - differ, record.read)
    folder, review = output / "correction", output / "review"
    hidden = flagged - len((folder / SUSPICIOUS).read_bytes().splitlines()) + 1  # the table has a header
    note = f"; {hidden:,} of them are in the blind sample, so they are not listed yet" if hidden > 0 else ""
    cases = read_queue(review)
    blind = sum(case.blind for case in cases)
    page = f"{format_count(len(cases), 'item')}, {blind:,} of them in the blind sample, which comes first"
    names = (("suspicious labels", SUSPICIOUS), ("report", "report.html"), ("corrected copies", "corrected"))
    return Summary(
        results=(
            ("Students", agreement),
            ("Suspicious", f"{flagged:,} labels{note}"),
            ("Review page", page if blind else format_count(len(cases), "item")),
            ("Changed", f"{changed - unreviewed:,} by people, {unreviewed:,} without a person"),
        ),
        warnings=tuple(sentence for sentence in (advice, facts.overlaps) if sentence),
        files=(
            ("review page", str(review / "review.html")),
            *((name, str(folder / file)) for name, file in names),
        ),
        next_steps=(
            (f"labelstill review import {output} FILE", "import the page's verdicts after you have judged items"),
            (f"labelstill find-errors {config}", "apply them; the students are used again"),
            ("labelstill stop", "stop the Prefect server, which keeps running for the web UI"),
        )
        if waiting or flagged
        else (("labelstill stop", "stop the Prefect server, which keeps running for the web UI"),),
    )


def _describe_results(facts: Facts) -> Iterator[tuple[str, str]]:
    names = {"samples/labelled": "Labelled items", "samples/unlabelled": "Pool", "samples/test": "Held-out items"}
    for stage, name in names.items():
        if (record := facts.records.get(stage)) is not None:
            reasons = ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in record.drops.items())
            left_out = f"; {record.dropped:,} cannot be used: {reasons}" if record.dropped else ""
            yield name, f"{record.kept:,} of {record.read:,} usable{left_out}"
    if (record := facts.records.get("rationales")) is not None:
        yield (
            "Rationales",
            f"{record.kept:,} of {format_count(record.read, 'item')} have a reason that is good enough"
            + _describe_judge(facts),
        )
    if (record := facts.records.get("correction")) is not None:
        yield "Wrong labels", _describe_correction(facts, record.read)
    if (record := facts.records.get("pseudo_labels")) is not None:
        yield "Pseudo-labels", _describe_pseudo_labels(facts, record.kept, record.read)
    if (record := facts.records.get("emit")) is not None:
        yield "Training set", f"{format_count(record.kept, 'example')}; {record.dropped:,} left out"
    asked = sum(r.costs.asked for r in facts.records.values())
    reused = sum(r.costs.reused for r in facts.records.values())
    costs = [r.costs.cost for r in facts.records.values() if r.costs.cost is not None]
    paid = f"; cost {sum(costs):,.2f}" if costs else ""
    yield "Questions", f"{asked:,} asked, {reused:,} answered from the ledger{paid}"


def _describe_judge(facts: Facts) -> str:
    names = ("judge: agreement with people", "judge: agreement, lower", "judge: agreement, upper")
    share, low, high = (facts.find_figure("rationales", name) for name in names)
    if share is None or low is None or high is None:
        asked = facts.find_figure("rationales", "judge: threshold") is not None
        return "; no person has checked its judge" if asked else ""
    return f"; its judge agrees with {share:.1%} of people's verdicts (between {low:.1%} and {high:.1%})"


def _describe_correction(facts: Facts, items: int) -> str:
    def count(name: str) -> int:
        return int(facts.find_figure("correction", name) or 0)

    changed, unreviewed = count("relabelled"), count("relabelled without a person")
    text = (
        f"{count('flagged'):,} of {items:,} labels look wrong; {changed:,} changed, "
        f"{changed - unreviewed:,} of them by review and {unreviewed:,} without"
    )
    if waiting := count("waiting for review"):
        text += f"; {waiting:,} wait for review"
    return text


def _describe_pseudo_labels(facts: Facts, kept: int, pool: int) -> str:
    text = f"{kept:,} of {format_count(pool, 'item')} in the pool got one that can be trusted"
    expected, low, high = (facts.find_figure("pseudo_labels", n) for n in ("expected precision", "lower", "upper"))
    if expected is not None and kept:
        text += f"; {expected:.1%} of these are expected to be right"
        if low is not None and high is not None:
            text += f" (between {low:.1%} and {high:.1%})"
    return text


def _list_files(output: Path, facts: Facts) -> Iterator[tuple[str, str]]:
    for name, path in _PAGES:
        if (output / path).exists():
            yield name, str(output / path)
    formats = sorted(
        {path.split("/")[0] for path, _, _ in facts.files if "/" in path and not path.startswith("images")}
    )
    if formats:
        yield "training set", f"{output / 'emit'}: {', '.join(formats)}"


def _list_next_steps(output: Path, facts: Facts) -> Iterator[tuple[str, str]]:
    waiting = facts.find_figure("correction", "waiting for review")
    if waiting:
        yield f"labelstill review import {output} FILE", "import verdicts from the review page, then run again"
    if (output / "emit" / "llamafactory" / "train_lora.yaml").exists():
        yield f"llamafactory-cli train {output / 'emit/llamafactory/train_lora.yaml'}", "train a student on the set"
    if "samples/test" in facts.records:
        yield "labelstill evaluate CONFIG.yaml", "measure students on the held-out items"


def _align(rows: Sequence[tuple[str, str]], indent: int = 0) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{'':{indent}}{name:{width}}  {text}".rstrip() for name, text in rows]
