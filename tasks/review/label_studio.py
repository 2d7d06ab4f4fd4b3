"""Write the review queue as Label Studio tasks, and read verdicts from Label Studio's JSON export.

The formats follow the chapters "Label Studio JSON format", "Import pre-annotated data", "Choices" (dynamic choices need
version 1.5) and "Repeater" of Label Studio's documentation, and were tested with version 1.23. Images are data: URLs,
so no file server is needed. They are listed below the dialogue, which contains marks such as `[image 1]` in their
place: Label Studio removes data: images from HyperText, and an Image tag with an empty list breaks its page. The
candidate is written as a prediction, which the project's settings show or hide. A blind case has none, and its task
does not contain the given label either, because Label Studio lists all data of a task.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson
from pydantic import AwareDatetime, BaseModel, TypeAdapter, ValidationError

from tasks.errors import JudgementError
from tasks.media import VideoRef
from tasks.records import NEITHER, ReviewCase, content_digest
from tasks.review.images import FRAME_PIXELS, encode_image
from tasks.review.recordings import choose_frames
from tasks.review.verdicts import Answer, check_size
from tasks.storage.files import replace_file, write_bytes

_CHOICES, _DIALOGUE = "verdict", "dialogue"
"""Names, in the configuration and in every result, of the control for the verdict and of the object it refers to."""
_HIDDEN = "(hidden for the audit)"


def write_tasks(cases: Sequence[ReviewCase], file: Path) -> Path:
    """Write the cases to `file` as a JSON list of tasks that Label Studio can import.

    Only one image is in memory at a time. Also writes the labelling configuration to a file beside it with the
    extension .xml, and returns the path of that file.
    """
    with replace_file(file) as temporary, temporary.open("wb") as out:
        for number, case in enumerate(cases):
            out.write((b",\n" if number else b"[\n") + orjson.dumps(_make_task(case)))
        out.write(b"\n]\n" if cases else b"[]\n")
    configuration = file.with_suffix(".xml")
    write_bytes(configuration, make_labelling_config(cases).encode())
    return configuration


def make_labelling_config(cases: Sequence[ReviewCase]) -> str:
    """Return the XML for the project's "Labeling interface", which shows the item next to its labels and `neither`.

    If all cases offer the same labels, the XML lists them. Otherwise each task lists its own (dynamic choices).
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


def read_export(file: Path) -> list[Answer]:
    """Read Label Studio's JSON export (not JSON-MIN), and return one answer per item and person.

    Tasks without an answer are left out. Cancelled (skipped) annotations are ignored, and if a person has annotated an
    item several times, the annotation updated last counts. Raises JudgementError, naming the task, if `write_tasks` did
    not write it or if its annotation does not have exactly one choice.
    """
    check_size(file)
    latest: dict[tuple[str, str | None], tuple[_Annotation, _Data, str]] = {}
    for number, task in enumerate(_read_tasks(file), 1):
        for annotation in task.annotations:
            # An item has two tasks if the tasks were imported twice.
            key = (task.data.item, annotation.person)
            before = latest.get(key)
            if not annotation.was_cancelled and (before is None or annotation.moment >= before[0].moment):
                latest[key] = annotation, task.data, f"task {number}"
    return [
        Answer(item, _read_choice(file, where, annotation), data.shown_given, data.content, where, person)
        for (item, person), (annotation, data, where) in latest.items()
    ]


def is_export(file: Path) -> bool:
    """Return whether the file is a JSON list, like Label Studio's export, and not verdicts as JSON Lines."""
    try:
        with file.open("rb") as handle:
            return handle.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError as error:
        raise JudgementError(f"{file}: can't be read: {error.strerror or error}; correct the path") from error


def _make_task(case: ReviewCase) -> dict[str, Any]:
    content = content_digest(case)
    dialogue, images = _lay_out(case)
    note = "Reviewers disagree about this item. " if case.disagreed else ""
    data = {
        "item": case.sample_id,
        "content": content,
        "given": _HIDDEN if case.blind else case.given,
        "candidate": _HIDDEN if case.blind else case.candidate or "–",
        "reason": note + (_HIDDEN if case.blind else case.reason or case.why or "–"),
        "choices": [{"value": label} for label in (*case.labels, NEITHER)],
        "dialogue": dialogue,
        "images": [{"url": url} for url in images],
    }
    return {"data": data, "predictions": [_make_prediction(case, content)] if case.candidate else []}


def _make_prediction(case: ReviewCase, content: str) -> dict[str, Any]:
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


def _lay_out(case: ReviewCase) -> tuple[str, list[str]]:
    """Return the item's text, with the places of its images and recordings marked, and the images' URLs.

    Of a recording some frames are listed. Label Studio plays only files that a server offers.
    """
    pieces: list[str] = []
    images: list[str] = []
    for part in case.parts:
        if part.type == "text":
            pieces.append(part.text)
            continue
        try:
            if part.type == "image":
                images.append(encode_image(part.image))
                pieces.append(f"[image {len(images)}]")
            else:
                pieces.append(_lay_out_frames(choose_frames(part.video), images))
        except OSError as error:
            pieces.append(f"[an image that can't be shown: {error}]")
    return "".join(pieces).strip(), images


def _lay_out_frames(video: VideoRef, images: list[str]) -> str:
    """Add the URLs of the frames to `images`, and return the mark for their place."""
    before = len(images)
    images += [encode_image(frame, FRAME_PIXELS) for frame in video.frames]
    times = ", ".join(f"{time:.1f}" for time in video.times)
    return f"[images {before + 1} to {len(images)}: a recording at {times} s]"


class _Data(BaseModel):
    item: str
    content: str
    given: str

    @property
    def shown_given(self) -> str | None:
        """The given label that the reviewer saw, or None in a blind case."""
        return None if self.given == _HIDDEN else self.given


class _User(BaseModel):
    id: int
    email: str = ""


class _Value(BaseModel):
    choices: list[str] = []


class _Result(BaseModel):
    from_name: str = ""
    value: _Value = _Value()


class _Annotation(BaseModel):
    was_cancelled: bool = False
    updated_at: AwareDatetime | None = None
    completed_by: int | _User | None = None
    result: list[_Result] = []

    @property
    def moment(self) -> datetime:
        """When the annotation was last updated; an annotation without a date counts as the oldest."""
        return self.updated_at or datetime.min.replace(tzinfo=UTC)

    @property
    def person(self) -> str | None:
        """Who annotated: an e-mail address or, if the export has only a number, that of the Label Studio user."""
        if isinstance(self.completed_by, _User) and self.completed_by.email:
            return self.completed_by.email
        number = self.completed_by.id if isinstance(self.completed_by, _User) else self.completed_by
        return None if number is None else f"Label Studio user {number}"


class _Task(BaseModel):
    data: _Data
    annotations: list[_Annotation]


def _read_tasks(file: Path) -> list[_Task]:
    try:
        return TypeAdapter(list[_Task]).validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise JudgementError(f"{file}: {first['msg']}; export the project again, as JSON") from error
        number, *field = first["loc"] or (0,)
        fault = ": ".join([*map(str, field), first["msg"]])
        raise JudgementError(
            f"{file}, task {int(number) + 1}: is not a task that `labelstill review export` wrote ({fault}); "
            "import its tasks into Label Studio, and export the project as JSON, not JSON-MIN"
        ) from error


def _read_choice(file: Path, where: str, annotation: _Annotation) -> str:
    chosen = [choice for r in annotation.result if r.from_name == _CHOICES for choice in r.value.choices]
    if len(chosen) != 1:
        raise JudgementError(
            f"{file}, {where}: {len(chosen)} choices instead of one; open it in Label Studio and choose one"
        )
    return chosen[0]
