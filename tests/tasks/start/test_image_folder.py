from pathlib import Path

from tasks.start.image_folder import locate_images

NAMES = ["0.png", "1.png", "2.png"]


def make_images(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).touch()
    return folder


def test_images_are_found_in_a_folder_beside_the_manifests(tmp_path: Path) -> None:
    pictures = make_images(tmp_path / "pictures")
    (tmp_path / "manifests").mkdir()
    located = locate_images(NAMES, tmp_path / "manifests", None)
    assert (located.folder, located.found, located.rename) == (pictures, 3, None)


def test_names_that_lead_out_of_a_folder_become_names_in_the_common_one(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images")
    (tmp_path / "m").mkdir()
    located = locate_images([f"../images/{name}" for name in NAMES], tmp_path / "m", None)
    assert located.folder == images and located.rename is not None and not located.by_last_part
    assert located.rename("../images/1.png") == "1.png"


def test_names_without_extension_are_those_of_single_files(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    (tmp_path / "images/2.jpg").touch()
    located = locate_images(["0", "1", "2"], tmp_path, None)
    assert located.rename is not None and located.by_last_part and located.found == 2
    assert [located.rename(name) for name in ("0", "2")] == ["images/0.png", "2"]
