"""Why an item is refused: the reason codes, and the exception that carries one within tasks/items."""

from enum import StrEnum

from tasks.prompts.boxes import BoxFault
from tasks.records import Dropped

STAGE = "samples"


class Reason(StrEnum):
    """Why an item was refused: the `reason` of its `records.Dropped`."""

    MALFORMED = "malformed"
    """A line that is not JSON, or a CSV row whose cells do not fit the header."""
    DUPLICATE_KEY = "duplicate_key"
    """A JSON object has several values with the same key."""
    NOT_AN_OBJECT = "not_an_object"
    NOT_UTF8 = "not_utf8"
    MISSING_FIELD = "missing_field"
    ROUNDED_ID = "rounded_id"
    """The id is a floating-point number that may have lost its last digits."""
    DUPLICATE_ID = "duplicate_id"
    CONFLICTING_LABELS = "conflicting_labels"
    """Items with the same id and the same content have different labels."""
    INSTRUCTION_NOT_TEXT = "instruction_not_text"
    UNRECOGNISED = "unrecognised"
    EMPTY_ITEM = "empty_item"
    """Without the label list and what the `strip` patterns match, no text, image or recording is left."""
    MISSING_LABEL = "missing_label"
    UNKNOWN_LABEL = "unknown_label"
    LABEL_NOT_OFFERED = "label_not_offered"
    OUTPUT_NOT_TEXT = "output_not_text"
    """The text of a free-text task is not a string."""
    IMAGE_NOT_A_NAME = "image_not_a_name"
    """`image` is neither a file name nor a list of file names."""
    PLACEHOLDER_MISMATCH = "placeholder_mismatch"
    UNSUPPORTED_MEDIA = "unsupported_media"
    """The text contains a placeholder of audio or another one that nothing is put in for, such as `<audio>`."""
    PATH_ESCAPES = "path_escapes"
    IMAGE_MISSING = "image_missing"
    IMAGE_EMPTY = "image_empty"
    NOT_AN_IMAGE = "not_an_image"
    IMAGE_TRUNCATED = "image_truncated"
    """The file begins like an image but cannot be decoded to its end."""
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_DEPTH = "image_depth"
    """The pixels are floating-point numbers, 32-bit integers or in another form that is not displayed as it is."""
    IMAGE_TOO_THIN = "image_too_thin"
    """One side is more than 200 times the other: Qwen2-VL's resizing refuses it."""
    VIDEO_NOT_A_NAME = "video_not_a_name"
    """`video` is neither a file name nor a list of file names."""
    VIDEO_MISSING = "video_missing"
    VIDEO_EMPTY = "video_empty"
    NOT_A_VIDEO = "not_a_video"
    VIDEO_TRUNCATED = "video_truncated"
    """The file begins like a recording but ends early, or a frame that is needed cannot be decoded."""
    VIDEO_WITHOUT_FRAMES = "video_without_frames"
    """The recording contains only sound, or nothing at all."""
    VIDEO_TOO_LONG = "video_too_long"
    VIDEO_SIZES_DIFFER = "video_sizes_differ"
    """The image files that are given as a recording differ in width or height."""
    BOX_UNREADABLE = BoxFault.UNREADABLE
    BOX_FORM_UNKNOWN = "box_form_unknown"
    """Nothing says what the coordinates are relative to, or what it says is contradicted by them."""
    BOX_COUNTS_DIFFER = "box_counts_differ"
    """The lists of boxes, of what they show and of their images differ in length."""
    BOX_WRONG_IMAGE = BoxFault.WRONG_IMAGE
    BOX_REVERSED = BoxFault.REVERSED
    BOX_DEGENERATE = BoxFault.DEGENERATE
    BOX_OUT_OF_RANGE = BoxFault.OUT_OF_RANGE
    BOX_ON_TURNED_IMAGE = "box_on_turned_image"
    """The box is in a trainer's form, and the image is rotated by EXIF, which trainers ignore."""


class Unusable(Exception):
    """Raised when one item cannot be used; `read_samples` turns it into a `records.Dropped`."""

    def __init__(self, reason: StrEnum, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def drop_item(sample_id: str, source: str, where: str, why: Unusable) -> Dropped:
    """Return the record of an item that cannot be used; `where` is its position in the manifest."""
    # A file name may contain bytes that are not UTF-8; records must be writable all the same.
    detail = f"{where}: {why.detail}".encode(errors="replace").decode()
    return Dropped(sample_id=sample_id, source=source, stage=STAGE, reason=why.reason, detail=detail)
