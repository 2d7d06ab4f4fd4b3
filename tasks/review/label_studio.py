"""The review queue as Label Studio tasks, and Label Studio's JSON export back as verdicts.

Formats: Label Studio's documentation, "Label Studio JSON format", "Import pre-annotated data", "Choices" (dynamic
choices, version 1.5 on) and "Repeater"; tried with version 1.23. A task needs no file server: its images are data:
URLs. They stand below the dialogue, where `[image 1]` tells their places, because Label Studio takes data: images out
of its HyperText, and an Image tag with a list of none breaks the page. The candidate is a prediction, which the
project's settings show or hide.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from xml.sax.saxutils import quoteattr

import orjson

from tasks.errors import JudgementError
from tasks.records import NEITHER, ReviewCase, content_digest
from tasks.review.page import image_url
from tasks.review.verdicts import Answer, check_size
from tasks.storage.files import replace_file, write_bytes

_CHOICES, _DIALOGUE = "verdict", "dialogue"
"""Names of the control and of what it is about, in the configuration and in every result."""


def write_tasks(cases: Sequence[ReviewCase], file: Path) -> Path:
    """Write the tasks (a JSON list, for Label Studio's import) to `file`, one image in memory at a time.

    Beside it goes the labelling configuration, whose path is returned: the same name, ending in .xml.
    """
    with replace_file(file) as temporary, temporary.open("wb") as out:
        for number, case in enumerate(cases):
            out.write((b",\n" if number else b"[\n") + orjson.dumps(_task(case)))
        out.write(b"\n]\n" if cases else b"[]\n")
    configuration = file.with_suffix(".xml")
    write_bytes(configuration, labelling_config(cases).encode())
    return configuration


def labelling_config(cases: Sequence[ReviewCase]) -> str:
    """The XML for the project's "Labeling interface": the item beside its labels and `neither`.

    Where all cases offer the same labels they stand in it; else each task brings its own (dynamic choices).
    """
    offered = {case.labels for case in cases}
    names = (*next(iter(offered)), NEITHER) if len(offered) == 1 else ()
    choices = "".join(f"\n        <Choice value={quoteattr(name)}/>" for name in names)
    dynamic = "" if names else ' value="$choices"'
    return f"""<View>
  <View style="display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 1.5rem">
    <View>
      <Text name="{_DIALOGUE}" value="$dialogue" selectionEnabled="false"/>
      <Repeater on="$images" indexFlag="{{{{n}}}}">
        <Image name="image_{{{{n}}}}" value="$images[{{{{n}}}}].url" maxWidth="100%" zoom="true"/>
      </Repeater>
    </View>
    <View>
      <Header size="5" value="Given: $given"/>
      <Header size="5" value="Candidate: $candidate"/>
      <Text name="reason" value="$reason" selectionEnabled="false"/>
      <Filter name="narrow" toName="{_CHOICES}" minlength="0" hotkey="shift+f" placeholder="Type to narrow"/>
      <Choices name="{_CHOICES}" toName="{_DIALOGUE}" choice="single-radio" required="true"{dynamic}>{choices}
      </Choices>
    </View>
  </View>
</View>
"""


def read_export(file: Path) -> dict[str, Answer]:
    """The answers in Label Studio's JSON export (not JSON-MIN), by sample id; tasks without one are left out.

    Cancelled (skipped) annotations don't count; of several the one that was updated last does. Raises JudgementError
    naming the task that isn't one of ours, or whose annotation has no or several choices.
    """
    check_size(file)
    try:
        exported: Any = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise JudgementError(f"{file}: is not JSON: {error}; export the project again, as JSON") from error
    answers: dict[str, Answer] = {}
    dated: dict[str, datetime] = {}
    for number, task in enumerate(cast(list[Any], exported) if isinstance(exported, list) else [exported], 1):
        where = f"task {number}"
        data, annotations = _read_task(file, where, task)
        counted = [a for a in annotations if not a.get("was_cancelled")]
        if not counted:
            continue
        latest = max(counted, key=_updated)
        answer = Answer(str(data["item"]), _choice(file, where, latest), data["given"], data["content"], where)
        # A task that was imported twice is two tasks of one item.
        if answer.id not in answers or _updated(latest) >= dated[answer.id]:
            answers[answer.id], dated[answer.id] = answer, _updated(latest)
    return answers


def is_export(file: Path) -> bool:
    """Whether a file is a whole JSON document, as Label Studio's export is, and not JSON Lines of verdicts."""
    try:
        with file.open("rb") as handle:
            return handle.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError as error:
        raise JudgementError(f"{file}: can't be read: {error.strerror or error}") from error


def _task(case: ReviewCase) -> dict[str, Any]:
    content = content_digest(case)
    dialogue, images = _dialogue(case)
    data = {
        "item": case.sample_id,
        "content": content,
        "given": case.given,
        "candidate": case.candidate or "–",
        "reason": case.reason or case.why or "–",
        "choices": [{"value": label} for label in (*case.labels, NEITHER)],
        "dialogue": dialogue,
        "images": [{"url": url} for url in images],
    }
    return {"data": data, "predictions": [_prediction(case, content)] if case.candidate else []}


def _prediction(case: ReviewCase, content: str) -> dict[str, Any]:
    models = [m for m in (case.student, case.teacher) if m]
    result = {
        "id": content[:10],
        "from_name": _CHOICES,
        "to_name": _DIALOGUE,
        "type": "choices",
        "value": {"choices": [case.candidate]},
    }
    score = sum(m.get(case.candidate or "", 0.0) for m in models) / len(models) if models else 0.0
    return {"model_version": "labelstill", "score": score, "result": [result]}


def _dialogue(case: ReviewCase) -> tuple[str, list[str]]:
    """The item as text with the places of its images, and their URLs."""
    pieces: list[str] = []
    images: list[str] = []
    for part in case.parts:
        if part.type == "text":
            pieces.append(part.text)
            continue
        try:
            images.append(image_url(part.image))
            pieces.append(f"[image {len(images)}]")
        except OSError as error:
            pieces.append(f"[an image that can't be shown: {error}]")
    return "".join(pieces).strip(), images


def _read_task(file: Path, where: str, task: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    fields = _object(task)
    data, annotations = fields.get("data"), fields.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise JudgementError(
            f'{file}, {where}: has no "data" and "annotations"; export the project as JSON, not JSON-MIN'
        )
    ours = cast(dict[str, Any], data)
    if not all(isinstance(ours.get(name), str) for name in ("item", "content", "given")):
        raise JudgementError(f"{file}, {where}: is no task of ours; import the tasks of `labelstill review export`")
    return ours, [cast(dict[str, Any], a) for a in cast(list[Any], annotations) if isinstance(a, dict)]


def _updated(annotation: Mapping[str, Any]) -> datetime:
    stamp = annotation.get("updated_at") or annotation.get("created_at") or ""
    try:
        moment = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _choice(file: Path, where: str, annotation: Mapping[str, Any]) -> str:
    ours = (r for r in map(_object, _list(annotation.get("result"))) if r.get("from_name") == _CHOICES)
    chosen = [choice for r in ours for choice in _list(_object(r.get("value")).get("choices"))]
    if len(chosen) != 1 or not isinstance(chosen[0], str):
        raise JudgementError(
            f"{file}, {where}: {len(chosen)} choices instead of one; open it in Label Studio and choose"
        )
    return chosen[0]


def _object(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []
