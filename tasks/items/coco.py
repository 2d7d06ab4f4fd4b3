"""Turn a COCO file into items: one per image, with its annotations as boxes."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

from tasks.packs.columns import Columns


def is_coco(content: Mapping[str, object]) -> bool:
    """Return whether a JSON object is a COCO file: lists of images with file names, and of annotations."""
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        return False
    return all("file_name" in image and _has_id(image, "id") for image in _list_objects(images)) and all(
        _has_id(annotation, "image_id") for annotation in _list_objects(annotations)
    )


def _list_objects(entries: object) -> list[dict[str, object]]:
    """Return the entries of a list, with an empty object for each that is none."""
    listed = cast(list[object], entries)
    return [cast(dict[str, object], entry) if isinstance(entry, dict) else {} for entry in listed]


def _has_id(entry: dict[str, object], key: str) -> bool:
    return isinstance(entry.get(key), str | int)


def list_coco_items(content: Mapping[str, Any], columns: Columns) -> list[dict[str, object]]:
    """Return the fields of each image's item. What else the file says of an image, such as a label, is kept.

    Annotations of images that the file does not list become items without an image, so that they are refused and do
    not vanish.
    """
    of_image: defaultdict[object, list[object]] = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    listed = [(image["id"], image) for image in content["images"]]
    missing = sorted(set(of_image) - {identity for identity, _ in listed}, key=str)
    items: list[dict[str, object]] = []
    for identity, image in [*listed, *((identity, {}) for identity in missing)]:
        boxes = {"annotations": of_image[identity], "categories": content.get("categories", [])}
        named = {columns.id: identity, columns.image: image.get("file_name"), columns.boxes: boxes}
        rest = {key: value for key, value in image.items() if key not in ("id", "file_name")}
        items.append(rest | {name: value for name, value in named.items() if name is not None})
    return items
