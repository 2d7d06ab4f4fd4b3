"""The types that the packages of tasks/ pass to each other; each docstring names who makes and reads the type."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tasks.media import Box, BoxForm, ImagePart, ImageRef, Part, Record, VideoPart, VideoRef, digest_of, digest_part

NEITHER = "neither"  # the verdict that none of the offered labels is right


class Split(StrEnum):
    """The part of the data that an item is from. Set by `flows`; read by many packages."""

    LABELLED = "labelled"
    UNLABELLED = "unlabelled"
    TEST = "test"


class Sample(Record):
    """An item that passed all checks. Made by `items`; read by every later package.

    `parts` are the item's dialogue and images; the prompt adds the role sentence and the label list. `labels` are those
    that this item may get, in the order of the prompt; empty in a free-text task.
    """

    id: str
    task: str  # name of the pack's task that recognised the item
    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    given: str | None = None  # the label (or text) in the manifest; None for an unlabelled item
    split: Split
    source: str  # absolute path of the manifest file
    user_turn: int = 0  # number of the user's latest turn; 0 if the item has no turns
    boxes: tuple[Box, ...] = ()  # from the manifest

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Return the item's images in the order of its parts."""
        return tuple(p.image for p in self.parts if isinstance(p, ImagePart))

    @property
    def videos(self) -> tuple[VideoRef, ...]:
        """Return the item's recordings in the order of its parts."""
        return tuple(p.video for p in self.parts if isinstance(p, VideoPart))


def content_digest(item: "Sample | ReviewCase") -> str:
    """Return a digest of the item's texts and images; its id and label do not count."""
    return digest_of([digest_part(p) for p in item.parts])


class Dropped(Record):
    """An item that was dropped, and why. Made by any package; read by the card, and by people in dropped.parquet."""

    sample_id: str
    stage: str
    reason: str  # a code in snake_case, from the enum of the package that dropped it
    detail: str = ""  # for people: what was found, and where
    source: str = ""  # absolute path of the manifest file; empty if the stage reads only one set


class LabelAnswer(Record):
    """The answer must be JSON that contains a reason (unless `between` is None) and then one of `labels`.

    Made by `prompts`; read by engines and parsing. The answer's text: ``opening + reason + between + label + closing``
    (without a reason ``opening + label + closing``). An engine without structured output writes these fixed pieces
    itself and lets the model fill in the two values; an engine with a JSON schema uses the keys.
    """

    type: Literal["label"] = "label"
    labels: tuple[str, ...] = Field(min_length=1)
    reason_key: str | None
    label_key: str
    opening: str
    between: str | None
    closing: str


class FreeText(Record):
    """The answer may be any text, such as a rationale. Made by `prompts`; read by engines and parsing."""

    type: Literal["text"] = "text"


Constraint = Annotated[LabelAnswer | FreeText, Field(discriminator="type")]


class Sampling(Record):
    """How answers are sampled. Made by `flows`; read by engines. vLLM refuses n > 1 at temperature 0 (greedy)."""

    n: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=128, ge=1)  # maximum per answer; for a LabelAnswer, per reason
    seed: int = 0
    label_probabilities: bool = False  # also those of every label, averaged over the n reasons (LabelAnswer only)


class Request(Record):
    """One question to a model about one sample. Made by `prompts`; read by engines and the ledger.

    The user turn is ``prefix + parts + suffix``. The prefix is the same for all items of a task, so that servers can
    cache it; the parts are those of the sample and may be shortened by the token budget; the suffix is kept.
    """

    key: str  # hash of everything that determines the answer; the ledger is keyed by it
    sample_id: str
    purpose: str  # such as `rationale` or `classify`; shown and counted, but not part of the key
    prefix: str
    parts: tuple[Part, ...]
    suffix: str
    constraint: Constraint
    sampling: Sampling
    system: str = ""  # the system turn; if it is empty, the model's chat template decides
    max_pixels: int = Field(gt=0)
    min_pixels: int = Field(gt=0)
    frame_pixels: int | None = None  # maximum area of a recording's frame, if it is lower than `max_pixels`
    boxes: BoxForm | None = None  # how boxes in the answer are written, if it may have any; their tokens are kept
    keep_from_turn: int = 0  # the first turn that the token budget must keep (the user's latest); 0: it drops none
    thinking: int = 0  # tokens for thinking before the answer, beyond `max_tokens`; 0: thinking is not switched on
    drafts: tuple[str, ...] = ()  # earlier thinking and text of each answer, to be rewritten in the format

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Return the request's images in the order of its parts."""
        return tuple(p.image for p in self.parts if isinstance(p, ImagePart))

    @property
    def videos(self) -> tuple[VideoRef, ...]:
        """Return the request's recordings in the order of its parts."""
        return tuple(p.video for p in self.parts if isinstance(p, VideoPart))

    @property
    def frame_bounds(self) -> dict[str, int]:
        """Return the bounds of the area of a recording's frame, as `min_pixels` and `max_pixels`."""
        return {"min_pixels": self.min_pixels, "max_pixels": min(self.frame_pixels or self.max_pixels, self.max_pixels)}


class Outcome(StrEnum):
    """The outcome of a request. Set by engines (OK, TRUNCATED, EMPTY, TOO_LONG, BAD_MEDIA, FAILED) and by parsing."""

    OK = "ok"
    REPAIRED = "repaired"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    UNKNOWN_LABEL = "unknown_label"
    ONLY_THINKING = "only_thinking"
    REFUSED = "refused"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    BAD_MEDIA = "bad_media"
    FAILED = "failed"


USABLE = frozenset({Outcome.OK, Outcome.REPAIRED})


class Generation(Record):
    """The raw answer to a request. Made by `models`; read by parsing."""

    key: str
    outcome: Outcome
    texts: tuple[str, ...] = ()  # the n raw answers, including opening and closing
    thoughts: tuple[str, ...] = ()  # what it thought before each, if the server returns it apart from the texts
    label_logprobs: dict[str, float] | None = None  # natural, per label of the constraint, normalised over these
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    tokens_thinking: int = 0  # the part of `tokens_out` that the server reports as thinking
    seconds: float = 0.0  # wall time of the item, or its share of a batch
    engine: str = ""  # fingerprint of the engine: kind, model, versions
    detail: str = ""  # the error, for FAILED, BAD_MEDIA and TOO_LONG
    shortened: str = ""  # what was removed to make the prompt fit (turns, images, pixels)
    # of a request with boxes: the sides of each of its images as the model saw it; None for one that was left out
    sides: tuple[tuple[int, int] | None, ...] = ()


class Rung(StrEnum):
    """How leniently an answer was read, from strict to lenient. Set by parsing; counted in a stage's costs."""

    STRICT = "strict"  # exactly the requested JSON
    STRIPPED = "stripped"  # the requested JSON, with a code fence or text around it
    REPAIRED_JSON = "repaired_json"  # JSON with other quotes, a trailing comma, a missing brace, …
    NORMALISED = "normalised"  # key or label differs in width, punctuation, spaces or Unicode form
    NEAREST = "nearest"  # the only label similar to what is written
    BARE = "bare"  # a label without JSON
    NONE = "none"  # no text was read


class Vote(Record):
    """One of several answers to the same question. Made by parsing; read by `dataset`, which pairs reasons."""

    label: str
    reason: str


class Prediction(Record):
    """A parsed answer about a sample. Made by `prompts`; read by all packages that use a model's labels."""

    sample_id: str
    source: str  # `teacher`, `student/fold=k`, …
    outcome: Outcome
    label: str | None
    probabilities: dict[str, float] = Field(default_factory=dict)  # per label; empty if the engine returns none
    votes: dict[str, int] = Field(default_factory=dict)
    reason: str = ""
    boxes: tuple[Box, ...] = ()  # those that the reason points at, if the votes agree on them
    model: str = ""  # identity of the model: name and digest, with those of an adapter
    rung: Rung = Rung.NONE  # how the text with the label was read
    attempt: int = 0  # 0: the first; 1: asked again with another seed; …
    detail: str = ""  # for people: why there is no answer, or what was removed to make the prompt fit
    answers: tuple[Vote, ...] = ()  # the votes with a reason, in the order of the answers
    key: str = Field(default="", exclude=True)  # of the answer in the ledger, which has what the model thought


class Interval(Record):
    """A share and its 95 % interval. Made by `evaluation`, `correction` and other wings; read by `report`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


class Action(StrEnum):
    """What `correction` decides about a given label. Read by `dataset` and `report`."""

    KEEP = "keep"
    RELABEL = "relabel"
    DROP = "drop"
    REVIEW = "review"


class Correction(Record):
    """The decision about one labelled item, and its evidence. Made by `correction`; read by `dataset` and `report`."""

    sample_id: str
    given: str
    predicted: str | None  # the students' most probable label, out of fold; None if no student judged the item
    adjudicated: str | None  # the teacher's, chosen without seeing `given`; None if it was not asked or gave none
    candidate: str | None  # the label proposed instead, if any
    action: Action
    label: str | None  # the final label; None only for DROP
    flagged: bool = False  # the given label is considered wrong
    reviewed: bool = False
    verdict: str | None = None  # the reviewer's answer: a label or `neither`
    fold: int | None = None  # None if the item was in every training set
    model: str = ""  # identities of the students not trained on the item, one per repeat
    p_given: float | None = None  # calibrated probability that it is right; this and the next two add up to 1
    p_candidate: float | None = None
    p_neither: float | None = None
    student_given: float | None = None  # the students' uncalibrated out-of-fold probability of the given label
    student_candidate: float | None = None  # the same for the candidate
    log_ratio: float | None = None  # tempered log(candidate / given) of the students' probabilities
    entropy: float | None = None  # entropy of the students' averaged probabilities, in nats
    dissent: float | None = None  # share of repeats that disagree with the given label
    teacher_given: float | None = None
    teacher_candidate: float | None = None
    gain: float = 0.0  # probability that a person's answer would correct the final label
    reason: str = ""  # the teacher's reason
    boxes: tuple[Box, ...] = ()  # those that it points at
    why: str  # one sentence for people

    @property
    def has_label_of_teacher(self) -> bool:
        """Return whether the item gets the teacher's label instead of the given one."""
        return self.label is not None and self.given != self.label == self.adjudicated


class ReviewCase(Record):
    """A question to a reviewer about one label, or about a reason. Made by `correction`, `pseudo_labels`, `dataset` and
    `rationales`; read by `review`."""

    sample_id: str
    source: str = ""  # absolute path of the item's manifest file
    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    boxes: tuple[Box, ...] = ()  # those of the item; the page draws them
    given: str  # empty in a blind case
    candidate: str | None  # the label proposed instead; None if there is no better one, and in a blind case
    blind: bool = False  # in the audit and not judged yet: it has `choices`, but no given label, candidate or evidence
    choices: tuple[str, ...] = ()  # in a blind case, the two labels that are offered first, in the order of `labels`
    disagreed: bool = False  # reviewers gave different verdicts, so the item is asked about again
    student: dict[str, float] = Field(default_factory=dict)  # out-of-fold probability per label, mean over repeats
    teacher: dict[str, float] = Field(default_factory=dict)  # its own, without seeing `given`; empty if not asked
    reason: str = ""  # the teacher's reason
    why: str = ""  # one sentence for people
    gain: float = 0.0  # probability that an answer corrects the final label; 0 once answered, and in a blind case


class Origin(StrEnum):
    """The source of an example's label, most trusted first. Set by `dataset`; read by `evaluation` and `report`."""

    REVIEW = "review"
    CORRECTION = "correction"
    GIVEN = "given"
    PSEUDO = "pseudo"
    MIX = "mix"  # a general-purpose example without a label, so that the model keeps its other abilities


class Subset(StrEnum):
    """The part of the training set that an example is in. Set by `dataset`; read by its exports and `report`."""

    TRAIN = "train"
    VALIDATION = "validation"


class Message(Record):
    """One chat turn. Made by `prompts`; read by exports.

    Each `<image>` of a question stands for the example's next image, each `<video>` for its next recording, and each
    `<bbox>` of an answer for its next box.
    """

    role: Literal["system", "user", "assistant"]
    content: str


class Pair(Record):
    """Two answers to an example's question. Made by `dataset`; read by the exports of preferences."""

    messages: tuple[Message, ...]  # the question and, last, the answer to prefer: a reason that ends in the right label
    rejected: str  # the other answer: a reason that ends in a wrong label


class Example(Record):
    """One line of the training set. Made by `dataset`; read by its exports, `evaluation` and `report`."""

    sample_id: str
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...]
    videos: tuple[VideoRef, ...] = ()
    boxes: tuple[Box, ...] = ()  # in the order of the `<bbox>` in the answer
    label: str  # the text in a free-text task; empty for MIX
    reason: str = ""
    origin: Origin
    why: str  # one sentence for people
    source: str  # absolute path of the item's manifest file
    task: str = ""  # name of the pack's task; empty for MIX
    subset: Subset = Subset.TRAIN
    probabilities: dict[str, float] = Field(
        default_factory=dict
    )  # the teacher's, per label; only for PSEUDO without a reason
    pairs: tuple[Pair, ...] = ()
