"""Make trl's batches of items with recordings, with exactly the tensors that the local engine asks with.

trl's own collator passes only images to the processor, so a row with recordings would be trained on as text alone.
"""

from collections.abc import Sequence
from typing import Any


class VideoCollator:
    """trl's collator, whose processor also gets the recordings of the rows that `lora_dataset.make_dataset` makes."""

    def __init__(self, collator: Any) -> None:
        self._processor = collator.processor = _WithVideos(collator.processor)
        self._collator = collator

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of `examples`, whose `videos` are lists of frames, described by `video_metadata`."""
        videos = [video for example in examples for video in example["videos"]]
        described = [metadata for example in examples for metadata in example["video_metadata"]]
        self._processor.options = {}
        if videos:
            # as in engines/local: frames were chosen and resized before
            as_they_are = {"do_resize": False, "do_sample_frames": False, "cap_pixels_per_frame": False}
            self._processor.options = {"videos": videos, "video_metadata": described, **as_they_are}
        return self._collator(examples)


class _WithVideos:
    """A processor that adds the recordings of the current batch where it is given the batch's images."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.options: dict[str, Any] = {}
        """What the processor is told about the recordings."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, **inputs: Any) -> Any:
        # the call for the questions has `images`, even if there are none; that for the answers has not
        return self._processor(**inputs, **(self.options if "images" in inputs else {}))
