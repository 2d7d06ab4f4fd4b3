"""What a drawn item shows, as fields for clauses, and how alike two texts are."""

import re
from collections.abc import Iterator

from tasks.demo.dataset import DemoItem
from tests.planted.reasons.author3.screen_clauses import FIELDS


def fields_of(item: DemoItem, marks: str) -> dict[str, str]:
    if item.task == "image":
        found = (re.search(pattern, marks) for pattern in FIELDS[item.label])
        return {k: v for match in found if match for k, v in match.groupdict().items()}
    fields: dict[str, str] = {}
    if early := re.search("先提“(.+?)”", item.reason):
        fields["e"] = early[1]
    late = re.findall("“(.+?)”", re.sub("先提“.+?”", "", item.reason))
    turns = re.findall(r"^(?:用户|客服): (.*)$", item.instruction, re.M)
    fields["q"] = max(late, key=len)
    said = [turn for turn in turns if all(word in turn for word in late)]
    if said and len(said[-1]) <= 22:
        fields["s"] = said[-1].replace("<image>", "")
    if named := re.search("东西是([^，]+)", item.reason):
        fields["a"] = named[1]
    fields["t"] = str(len(turns))
    fields["i" if item.images else "none"] = str(len(item.images))
    return fields


def clauses_of(text: str) -> list[str]:
    return [clause.strip() for clause in re.split(r"[|\n]", text) if clause.strip()]


def filled(clauses: list[str], fields: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The clauses that an item's fields fill, each with its unfilled form."""
    for clause in clauses:
        needed, _, form = clause.rpartition("&")
        if (not needed or needed in fields) and all(name in fields for name in re.findall(r"\{(\w+)\}", form)):
            yield clause, form.format_map(fields)
