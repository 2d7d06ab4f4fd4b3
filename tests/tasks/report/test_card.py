"""The card of a run: its page, parsed as HTML, and README.md, parsed by the Hub's own library."""

import base64
import io
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest
from huggingface_hub import DatasetCard
from PIL import Image, ImageChops
from pydantic import BaseModel

from tasks.dataset.decisions import Decision, make_example
from tasks.errors import ConfigError
from tasks.evaluation.table import TRANSDUCTIVE
from tasks.items.images import check_image
from tasks.media import Box
from tasks.records import Example, Origin
from tasks.report.card.card import CardSettings, read_settings, write_card
from tasks.report.card.items import show_item
from tasks.storage.rows import read_rows, write_rows
from tests.tasks.making import draw_numbered_video, image, prompter, sample
from tests.tasks.report.made_run import ATTACK, LABELS, make_run

SETTINGS = CardSettings(title="Dialogues <1>", licence="cc-by-4.0", pack="demo")

_BYTES_OF_A_THOUSAND_ITEMS = 3 << 20
"""The page of a thousand items is smaller than this; pages up to 10 MB can be sent by mail."""


class Page(HTMLParser):
    """Parse the page into its elements and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else data


def write_page(run: Path, settings: CardSettings = SETTINGS) -> Page:
    return Page(write_card(run, settings).read_text("utf-8"))


def has_section(page: Page, name: str) -> bool:
    return any(tag == "section" and attributes.get("id") == name for tag, attributes in page.elements)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("card") / "run", text=ATTACK)


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return write_page(run)


def test_the_page_has_all_sections_and_a_link_to_each(page: Page) -> None:
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert sections == [
        "flow", "class-balance", "confidence", "corrections", "changed-labels", "reasons", "examples", "left-out",
        "cost-and-time", "models", "prompts", "licence", "recipe",
    ]  # fmt: skip
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert links == ["#summary", *(f"#{name}" for name in sections)]


def test_markup_in_data_is_shown_as_text(page: Page) -> None:
    assert page.text.count(ATTACK) > 10
    assert not [tag for tag, _ in page.elements if tag == "script"]
    images = [a for tag, a in page.elements if tag == "img"]
    assert images and all((a["src"] or "").startswith("data:image/webp;base64,") for a in images)
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]


def test_the_same_run_gives_the_same_card(run: Path, page: Page) -> None:
    before = (run / "card" / "index.html").read_bytes()
    assert write_card(run, SETTINGS).read_bytes() == before


def test_the_page_loads_nothing_from_elsewhere(run: Path, page: Page) -> None:
    loads = [a[name] or "" for _, a in page.elements for name in ("src", "href", "xlink:href") if name in a]
    assert loads and not [x for x in loads if not x.startswith(("#", "data:"))]
    source = (run / "card" / "index.html").read_text("utf-8")
    assert "@import" not in source
    assert not [u for u in re.findall(r"url\(([^)]*)\)", source) if not u.startswith(("#", "data:"))]


def test_ids_are_unique_over_all_charts(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids)) > 100


def test_counts_prompts_models_and_intervals_are_on_the_page(page: Page) -> None:
    text = page.text
    assert "109 training examples, 3 labels" in text
    assert "96.0%" in text and "93.0% to 98.0%" in text
    assert "Teacher, which label: task dialogue, item given-0" in text and "申请退款" in text
    assert "teacher#1" in text and "Licence: cc-by-4.0" in text
    assert "1.25" in text


def test_every_origin_has_examples_with_pictures(page: Page) -> None:
    for name in ("a person's verdict (20)", "corrected without a person (20)", "as given (20)", "Pseudo-label"):
        assert name in page.text
    assert "What is <b>bold</b>?" in page.text


def test_a_recording_is_shown_as_a_strip_of_frames_at_its_place(tmp_path: Path) -> None:
    clip = draw_numbered_video(tmp_path, frames=20)
    item = sample("a", "用户: 看", clip, "和", image("x", clip.frames[3].path))
    row = {"sample_id": "a", "messages": "[]"}
    shown = show_item(row, item.parts, None)
    assert shown.text == [("用户: 看", "recording"), ("和", "picture"), ("", "")]
    (strip,) = shown.strips
    assert [picture.note for picture in strip] == [
        "at 0.0 of 10.0 s",
        "at 3.0 of 10.0 s",
        "at 6.5 of 10.0 s",
        "at 9.5 of 10.0 s",
    ]
    assert all(picture.url and picture.width <= 90 for picture in strip) and len(shown.pictures) == 1
    emitted = make_example(item, Decision("申请退款", Origin.GIVEN, "w"), prompter())
    row = {
        "sample_id": "a",
        "messages": dump(emitted.messages),
        "images": dump(emitted.images),
        "videos": dump(emitted.videos),
    }
    shown = show_item(row, (), None)
    assert len(shown.strips) == len(shown.pictures) == 1 and "recording" in [mark for _, mark in shown.text]


def test_the_boxes_that_are_trained_on_are_drawn_on_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (440, 660), "white").save(tmp_path / "a.png")
    screen = check_image(tmp_path / "a.png", 10**6)
    box = Box(ref="退款", corners=(100, 200, 300, 400))
    plain, boxed = (
        show_item({"sample_id": "a", "messages": "[]", "boxes": dump(boxes)}, sample("a", screen).parts).pictures[0]
        for boxes in ((), (box,))
    )
    drawn = ImageChops.difference(*(decode(picture.url) for picture in (plain, boxed))).convert("L")
    found = drawn.point(lambda value: 255 * (value > 60)).getbbox()
    assert found == pytest.approx((50, 100, 151, 201), abs=3)


def decode(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def dump(records: Sequence[BaseModel]) -> str:
    return orjson.dumps([record.model_dump() for record in records]).decode()


def test_the_transductive_warning_is_the_first_line_of_page_and_readme(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 6, figures={"transductive": 1.0})
    page = write_page(run)
    assert page.text[page.text.index(SETTINGS.title) + len(SETTINGS.title) :].strip().startswith(TRANSDUCTIVE)
    card = DatasetCard.load(run / "card" / "README.md")
    assert card.text.strip().startswith(f"**{TRANSDUCTIVE}**")
    assert "transductive" in (card.data.tags or [])


def test_given_labels_are_found_and_not_made_by_experts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    examples = read_rows(run / "emit" / "kept.parquet", Example)
    for origins, creators in (({"given"}, ["found"]), ({"given", "correction"}, ["found", "machine-generated"])):
        write_rows(run / "emit" / "kept.parquet", [e for e in examples if e.origin in origins])
        write_card(run, SETTINGS)
        assert DatasetCard.load(run / "card" / "README.md").data.to_dict()["annotations_creators"] == creators


def test_a_run_that_is_not_transductive_has_no_such_warning(page: Page) -> None:
    assert "ransductive" not in page.text


def test_the_readme_is_a_dataset_card_for_the_hub(run: Path, page: Page) -> None:
    card = DatasetCard.load(run / "card" / "README.md")
    data = card.data.to_dict()
    assert data["pretty_name"] == SETTINGS.title
    assert data["license"] == "cc-by-4.0" and data["language"] == "zh" and data["size_categories"] == "n<1K"
    assert data["task_categories"] == ["image-text-to-text"]
    assert f"| {LABELS[0]} | 20 |" in card.text
    assert "<script" not in card.text and "\\<1\\>" in card.text


@pytest.mark.parametrize(
    ("licence", "identifier", "name"),
    [(None, "unknown", None), ("Apache-2.0", "apache-2.0", None), ("Our own, 2026", "other", "our-own-2026")],
)
def test_the_readme_names_licences_as_the_hub_does(
    tmp_path: Path, licence: str | None, identifier: str, name: str | None
) -> None:
    (tmp_path / "run").mkdir()
    page = write_page(tmp_path / "run", CardSettings(title="t", licence=licence))
    card = DatasetCard.load(tmp_path / "run" / "card" / "README.md")
    assert (card.data.to_dict()["license"], card.data.to_dict().get("license_name")) == (identifier, name)
    assert ("No licence is named" in page.text) == (licence is None)


def test_a_card_is_written_when_stages_are_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 6)
    for missing in (("samples", "pictures", "pseudo_labels"), ("emit", "correction")):
        for name in missing:
            shutil.rmtree(tmp_path / name if name == "pictures" else run / name)
        page = write_page(run)
        assert has_section(page, "cost-and-time") and not [tag for tag, _ in page.elements if tag == "img"]
        assert ("no picture" in page.text, "is not finished" in page.text) == ("emit" not in missing, "emit" in missing)


def test_the_card_of_an_empty_folder_says_that_the_run_is_not_finished(tmp_path: Path) -> None:
    assert "is not finished" in write_page(tmp_path).text


def test_the_error_for_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        write_card(tmp_path / "nowhere", SETTINGS)


def test_the_settings_of_a_card_are_saved_and_read_back(run: Path, page: Page) -> None:
    assert read_settings(run) == SETTINGS
    (run / "card" / "settings.json").write_text('{"title": ""}')
    with pytest.raises(ConfigError, match=r"settings\.json: .*Remove this file"):
        read_settings(run)


def test_a_card_of_a_thousand_items_is_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1000, size=(540, 1200))
    assert write_card(run, SETTINGS).stat().st_size < _BYTES_OF_A_THOUSAND_ITEMS
