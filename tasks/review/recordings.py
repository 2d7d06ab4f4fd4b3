"""Choose how the review page shows a recording: a file that browsers play, and a strip of some of its frames.

A recording that browsers do not play, or that was given as image files, has only the strip. So has one whose file
would make a page that contains everything too large.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tasks.media import VideoRef
from tasks.prompts.recordings import keep_frames

_SHOWN_FRAMES = 8
_PLAYED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
"""Maps the suffixes of files that browsers play to their types. If one does not know the codec, the page says so."""
_MOST_BYTES = 2_000_000
"""Size up to which a page that contains everything contains a recording; as text it is a third larger."""


def choose_frames(video: VideoRef) -> VideoRef:
    """Return the recording with only the frames that a person is shown, evenly spread."""
    return keep_frames(video, _SHOWN_FRAMES)


def link_recordings(videos: Iterable[VideoRef], folder: Path, *, inline: bool) -> Mapping[str, str | None]:
    """Map each recording's digest to a URL at which the page can play it, or None if it can't.

    With `inline`, that is a data: URL. Otherwise the files are linked to `folder`, which lies beside the page, and
    those of other recordings are removed from there; a file on another disk is not copied, but named by its path.
    """
    distinct = {video.sha256: Path(video.path) for video in videos if Path(video.path).suffix.lower() in _PLAYED}
    names = {digest: digest[:40] + path.suffix.lower() for digest, path in distinct.items()}
    for old in [file for suffix in _PLAYED for file in folder.glob(f"*{suffix}")]:
        if inline or old.name not in names.values():
            old.unlink()
    if inline:
        return {digest: _contain(path) for digest, path in distinct.items()}
    return {digest: _link(path, folder / names[digest]) for digest, path in distinct.items()}


def _contain(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError:  # it is gone; its frames are still there
        return None
    return f"data:{_PLAYED[path.suffix.lower()]};base64,{data}"


def _link(path: Path, target: Path) -> str | None:
    if not path.exists():
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not target.exists():
            os.link(path.resolve(), target)
    except OSError:
        return path.resolve().as_uri()
    return f"{target.parent.name}/{target.name}"
