"""The types that pass between wings, each with who makes it and who reads it.

Images travel as path and digest, never as bytes.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

NEITHER = "neither"
"""A verdict: none of the offered labels is right (an unusable item)."""


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def digest_of(value: object) -> str:
    """Return the sha256 (hex) of a JSON-able value in one canonical spelling: keys sorted, UTF-8."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


class ImageRef(Record):
    """An image file (absolute path) that was read and checked. Made by items; read by prompts, models and dataset."""

    path: str
    sha256: str
    width: int = Field(gt=0)
    """Pixels, after EXIF orientation."""
    height: int = Field(gt=0)


class TextPart(Record):
    """A run of text. Made by items; read by prompts and the token budget, which drops whole turns by their number."""

    type: Literal["text"] = "text"
    text: str
    turn: int = 0


class ImagePart(Record):
    """An image in its place between texts. Made by items; read by prompts and the token budget."""

    type: Literal["image"] = "image"
    image: ImageRef
    turn: int = 0


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Split(StrEnum):
    """Where an item comes from. Chosen by flows; read by items, rationales, correction and dataset."""

    LABELLED = "labelled"
    UNLABELLED = "unlabelled"
    TEST = "test"


class Sample(Record):
    """One item that passed the checks on the way in. Made by items; read by every later wing.

    `parts` is what the item itself holds (dialogue and images), without role sentence or label list. `labels` are the
    labels this very item may get, in order; none where its task is free text.
    """

    id: str
    task: str
    """Name of the pack's task that recognised the item."""
    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    given: str | None = None
    """The label (or text) it came with; None when unlabelled."""
    split: Split
    source: str
    """Manifest file (absolute path) it was read from."""

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The item's images in order."""
        return tuple(p.image for p in self.parts if isinstance(p, ImagePart))


def content_digest(item: "Sample | ReviewCase") -> str:
    """Return the digest of what the item shows and says, whatever its id or label."""
    return digest_of([p.text if p.type == "text" else p.image.sha256 for p in item.parts])


class Dropped(Record):
    """An item that was dropped, and why. Made by any wing; read by people in dropped.parquet, and by the card."""

    sample_id: str
    stage: str
    reason: str  # a code in snake_case, of the wing's enum of reasons
    detail: str = ""
    """For people: what exactly was found, and where."""


class LabelAnswer(Record):
    """The answer must be the pack's JSON: a reason (unless `between` is None), then one of `labels`.

    Made by prompts; read by engines and parsing. The answer's text is ``opening + reason + between + label + closing``,
    or ``opening + label + closing`` without a reason. An engine without structured output writes these itself and lets
    the model fill only the two values; one that has it (a JSON schema) uses the keys.
    """

    type: Literal["label"] = "label"
    labels: tuple[str, ...] = Field(min_length=1)
    reason_key: str | None
    label_key: str
    opening: str
    between: str | None
    closing: str


class FreeText(Record):
    """The answer is free text: a rationale. Made by prompts; read by engines and parsing."""

    type: Literal["text"] = "text"


Constraint = Annotated[LabelAnswer | FreeText, Field(discriminator="type")]


class Sampling(Record):
    """How to draw answers. Made by flows; read by engines. Temperature 0 is greedy: vLLM then refuses n > 1."""

    n: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=128, ge=1)
    """Upper bound on generated tokens an answer (for a LabelAnswer: of the reason)."""
    seed: int = 0
    label_probabilities: bool = False
    """Also return the log-probability of every label (LabelAnswer only), averaged over the n reasons."""


class Request(Record):
    """One question to a model about one sample. Made by prompts; read by engines and the ledger.

    The user turn is ``prefix + parts + suffix``: prefix is the same for all items of a task (prefix cache), parts are
    the sample's own and may be shortened by the token budget, suffix is fixed again.
    """

    key: str
    """Hash of all that decides the answer: the ledger's key."""
    sample_id: str
    purpose: str
    """`rationale`, `classify`, `answer`, … for people and counts; not part of the key."""
    prefix: str
    parts: tuple[Part, ...]
    suffix: str
    constraint: Constraint
    sampling: Sampling
    system: str = ""
    """The turn before the user's; where it is empty, the model's chat template puts its own there, or none."""
    max_pixels: int = Field(gt=0)
    min_pixels: int = Field(gt=0)
    keep_from_turn: int = 0
    """Parts of this turn and later ones (the latest user turn) are never dropped; 0: all may be."""

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The request's images in order."""
        return tuple(p.image for p in self.parts if isinstance(p, ImagePart))


class Outcome(StrEnum):
    """What became of an answer. Set by engines (OK, TRUNCATED, EMPTY, TOO_LONG, BAD_MEDIA, FAILED) and parsing."""

    OK = "ok"
    REPAIRED = "repaired"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    UNKNOWN_LABEL = "unknown_label"
    REFUSED = "refused"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    BAD_MEDIA = "bad_media"
    FAILED = "failed"


USABLE = frozenset({Outcome.OK, Outcome.REPAIRED})


class Generation(Record):
    """A raw answer. Made by models; read by parsing."""

    key: str
    outcome: Outcome
    texts: tuple[str, ...] = ()  # the n answers, raw and whole (with opening and closing)
    label_logprobs: dict[str, float] | None = None
    """Natural-log probability of each label of the request's constraint, normalised over them."""
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0  # wall time of the item (its share of a batch)
    engine: str = ""  # fingerprint of the engine: kind, model, versions
    detail: str = ""  # for FAILED, BAD_MEDIA, TOO_LONG: what went wrong
    shortened: str = ""
    """What was taken away so that the prompt fits: turns, images, pixels; empty when it was asked whole."""


class Rung(StrEnum):
    """How leniently an answer had to be read, from the strictest. Set by parsing; counted in a stage's costs."""

    STRICT = "strict"  # the JSON that was asked for, nothing else
    STRIPPED = "stripped"  # that JSON, with a fence or text around it
    REPAIRED_JSON = "repaired_json"  # JSON with other quotes, a comma too many, a missing brace, …
    NORMALISED = "normalised"  # key or label differ in width, punctuation, spaces or Unicode form
    NEAREST = "nearest"  # the one label that comes near what is written
    BARE = "bare"  # a label without JSON
    NONE = "none"  # no text was read


class Prediction(Record):
    """A parsed answer about a sample. Made by prompts; read by rationales, correction, pseudo_labels, evaluation."""

    sample_id: str
    source: str  # `teacher`, `student/fold=k`, …
    outcome: Outcome
    label: str | None
    probabilities: dict[str, float] = Field(default_factory=dict)
    """Probability of each of the item's labels; empty where the engine has none to give."""
    votes: dict[str, int] = Field(default_factory=dict)
    reason: str = ""
    model: str = ""  # identity of the model that answered (name and digest, adapter included)
    rung: Rung = Rung.NONE  # how the text that gave the label (and reason) was read
    attempt: int = 0  # 0: the first; 1: asked again with another seed; …
    detail: str = ""
    """For people: why there is no answer, or what was taken from the prompt so that it fitted."""


class Interval(Record):
    """A share and the 95 % interval around it. Made by evaluation, correction and pseudo_labels; read by report."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


class Action(StrEnum):
    """What correction decides about a given label. Read by dataset and report."""

    KEEP = "keep"
    RELABEL = "relabel"
    DROP = "drop"
    REVIEW = "review"


class Correction(Record):
    """The decision about one labelled item, with its evidence. Made by correction; read by dataset and report."""

    sample_id: str
    given: str
    predicted: str | None
    """The students' likeliest label, out of fold, averaged over repeats; None where no student judged the item."""
    adjudicated: str | None
    """The teacher's label, asked blind; None when it was not asked or gave none."""
    candidate: str | None  # the label that would be given instead, if any
    action: Action
    label: str | None  # the final label; None only for DROP
    flagged: bool = False  # the given label is held to be wrong
    reviewed: bool = False
    verdict: str | None = None  # what the reviewer said: a label, or `neither`
    fold: int | None = None  # None where the item was in every training set (a class with fewer items than folds)
    model: str = ""  # identities of the students that did not see the item, one per repeat
    p_given: float | None = None
    """Calibrated probability that the given label is right; with the next two it adds up to 1."""
    p_candidate: float | None = None
    p_neither: float | None = None
    student_given: float | None = None  # the students' uncalibrated out-of-fold probability
    student_candidate: float | None = None
    log_ratio: float | None = None  # tempered log(candidate / given) of the students
    entropy: float | None = None  # of the students' averaged probabilities, nats
    dissent: float | None = None  # share of repeats that disagree with the given label
    teacher_given: float | None = None
    teacher_candidate: float | None = None
    gain: float = 0.0  # probability that a person's answer would mend the final label
    reason: str = ""  # the teacher's
    why: str  # one sentence for people


class ReviewCase(Record):
    """A question to a person about one label. Made by correction, pseudo_labels and dataset; read by review."""

    sample_id: str
    source: str = ""  # manifest file (absolute path) of the item
    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    given: str
    candidate: str | None
    """The label proposed instead; None when there is no better one than the given."""
    student: dict[str, float] = Field(default_factory=dict)
    """Out-of-fold probability of each label, averaged over repeats."""
    teacher: dict[str, float] = Field(default_factory=dict)
    """The teacher's, asked blind; empty when it was not asked."""
    reason: str = ""  # the teacher's
    why: str = ""  # one sentence for people
    gain: float = 0.0
    """Probability that an answer mends the label that the item would otherwise end with; 0 once it is answered."""


class Origin(StrEnum):
    """Where an example's label comes from, strongest first. Set by dataset; read by export, evaluation and report."""

    REVIEW = "review"
    CORRECTION = "correction"
    GIVEN = "given"
    PSEUDO = "pseudo"
    MIX = "mix"
    """A general-purpose example, mixed in against forgetting; it has no label."""


class Subset(StrEnum):
    """Which part of the emitted set an example is in. Set by dataset; read by export and report."""

    TRAIN = "train"
    VALIDATION = "validation"


class Message(Record):
    """One chat turn; images stand in it as `<image>`, in the example's order. Made by prompts; read by export."""

    role: Literal["system", "user", "assistant"]
    content: str


class Example(Record):
    """One line of the training set. Made by dataset; read by export, evaluation and report."""

    sample_id: str
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...]
    label: str
    """The label; a caption, where the pack's task has no label set; empty for MIX."""
    reason: str = ""
    origin: Origin
    why: str  # one sentence for people
    source: str  # manifest file (absolute path) the item was read from
    task: str = ""  # name of the pack's task; empty for MIX
    subset: Subset = Subset.TRAIN
