"""Write the text of a new pack's files and of run.yaml, with comments for the people who edit them."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from tasks.models.engines.gpus import list_gpus
from tasks.packs.columns import DEFAULT_COLUMNS, Columns
from tasks.packs.pack import STARTER
from tasks.start.grouping import StarterTask

NAMES = {"zh": "Chinese", "en": "English"}
"""Maps the language of a starter's prompts to its name."""
_CHINESE = 0.3
"""Share of the letters from which the prompts are in Chinese."""
_KEYS = {
    "zh": {"reason_key": "理由", "label_key": "所属类别", "reason_max_chars": 50, "neither": "以上都不是"},
    "en": {"reason_key": "reason", "label_key": "label", "reason_max_chars": 200, "neither": "none of these"},
}
_OCR = {"zh": ("〔图中文字：", "〕"), "en": ("[text on the image:", "]")}


def choose_language(items: Sequence[tuple[str, str]]) -> str:
    """Return `zh` if enough letters of the (text, label) of items are Chinese, else `en`."""
    letters = [c for item in items[:2000] for text in item for c in text[:1000] if c.isalpha()]
    chinese = sum("\u4e00" <= c <= "\u9fff" for c in letters)
    return "zh" if chinese > _CHINESE * len(letters) else "en"


def write_pack(
    folder: Path, data: Path, language: str, columns: Columns, tasks: Sequence[StarterTask], *, images_first: bool
) -> None:
    """Write the folder of a new pack: the starter's templates of a language, and pack.yaml."""
    shutil.copytree(STARTER / language, folder)
    keys = _KEYS[language]
    labels = {label for task in tasks for label in task.labels}
    lines = [
        f"# How items are labelled: written by `labelstill init` from {data}. Anybody may edit this file.",
        f"name: {quote(_make_name(data))}",
        f"language: {language}",
        "# the two keys of a model's answer, which is JSON: first its reason, then the label",
        *(f"{key}: {quote(keys[key])}" for key in ("reason_key", "label_key")),
        f"reason_max_chars: {keys['reason_max_chars']}",
    ]
    if keys["neither"] not in labels:
        lines += ["# what a teacher may answer about a doubtful label when no label fits"]
        lines += [f"neither: {quote(keys['neither'])}"]
    if columns != DEFAULT_COLUMNS:
        lines += ["# what the manifest calls the fields of an item", "columns:"]
        lines += [f"  {name}: {quote(value)}" for name, value in columns if value is not None]
    if images_first:
        lines += [
            "# texts do not show where images and recordings belong (<image>, <video>): they come first",
            "images_first: true",
        ]
    lines += [
        "",
        "# Each label is spelled exactly as in the data. In the quotes after it, write what sets it apart from",
    ]
    lines += ["# similar labels, in 10 to 30 characters: this helps models most.", "tasks:"]
    for task in tasks:
        lines += [f"  {task.name}:"]
        if task.recognise is not None:
            lines += ["    # how the texts of this task begin", f"    recognise: {quote(task.recognise)}"]
        if task.strip:
            lines += ["    # what is cut out of a text, so that only the item is left", "    strip:"]
            lines += [f"      - {quote(pattern)}" for pattern in task.strip]
        if task.label_list is not None:
            lines += ["    # the labels that the text itself offers stand in the round brackets"]
            lines += [f"    label_list: {quote(task.label_list)}"]
        lines += ["    labels:"]
        lines += [f'      {quote(label)}: "" # {count:,} items' for label, count in task.labels.most_common()]
    (folder / "pack.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")


def make_ocr_option(language: str) -> str:
    """Return the end of a pack.yaml that shows models the text on images."""
    before, after = _OCR.get(language, _OCR["en"])
    return (
        "\n# the text on images is read once, and shown to models after its image\n"
        f"ocr: {{before: {quote(before)}, after: {quote(after)}}}\n"
    )


def make_run_file(data: Path, manifest: Path, images: Path, folds: int | None) -> str:
    """Return the text of run.yaml: what `check` and `find-errors` need, and comments with what else may be added."""
    gpus = len(list_gpus())
    if gpus:
        models = [
            f"# models; this machine has {gpus} GPU{'s' if gpus > 1 else ''}:",
            "# generator: {engine: vllm, model: Qwen/Qwen2-VL-7B-Instruct}   # writes a reason for each label",
            "# teacher: {engine: vllm, model: Qwen/Qwen2-VL-72B-Instruct-AWQ, "
            f"tensor_parallel_size: {gpus}}}   # second opinions and pseudo-labels",
            "# student: {base: Qwen/Qwen2-VL-2B-Instruct, folds: 5}",
        ]
    else:
        server = "{engine: server, base_urls: [http://HOST:8000/v1], model: NAME}"
        models = [
            "# models; this machine has no GPU, so they run on a server with the API of OpenAI:",
            f"# generator: {server}   # writes a reason for each label",
            f"# teacher: {server}   # second opinions and pseudo-labels",
        ]
    probe = (
        f"student: {{kind: probe, folds: {folds}}}   # 5 when labels have more items\n"
        if folds not in (5, None)
        else ""
    )
    return (
        f"# Written by `labelstill init` from {data}. Paths are relative to the working folder.\n"
        "pack: ./pack\n"
        f"labelled: {{manifest: {quote(str(manifest))}, images: {quote(str(images))}}}\n"
        f"output: {quote('artifacts/' + _make_name(data))}\n{probe}\n"
        "# items without labels, which the teacher labels; and held-out items, which measure students:\n"
        "# unlabelled: {manifest: FILE, images: FOLDER}\n"
        "# evaluation: {manifest: FILE, images: FOLDER}\n" + "\n".join(models) + "\n"
    )


def _make_name(data: Path) -> str:
    name = re.sub(r"[^\w-]+", "-", data.resolve().stem).strip("-")
    return name if name not in ("", "images", "texts") else "items"  # artifacts/images belongs to all runs


def quote(text: object) -> str:
    """Return a text as YAML, in quotes: in single ones if it contains backslashes, as patterns do."""
    text = str(text)
    if "\\" in text and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9).strip()
