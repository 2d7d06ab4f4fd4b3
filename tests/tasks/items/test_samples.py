import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from tasks.errors import ManifestError
from tasks.items.samples import Intake, Reason, read_samples
from tasks.media import ImagePart, Part
from tasks.packs.pack import TEMPLATES, load_pack
from tasks.records import Split
from tests.planted.manifest import write_planted
from tests.tasks.intake import SAID, SHOWN, item, reasons

DEMO, WWW = load_pack("demo"), load_pack("www2025")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(folder / "a.png")
    return folder


def read(images: Path, *items: Any, pack: Any = DEMO, split: Split = Split.LABELLED, **options: Any) -> Intake:
    manifest = images.parent / "train.json"
    manifest.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    intake = read_samples(manifest, images, pack, split, **options)
    assert len(intake.kept) + len(intake.dropped) == intake.read == len(items)
    return intake


def summarise_parts(parts: tuple[Part, ...]) -> list[tuple[int, str]]:
    return [(p.turn, "IMAGE" if isinstance(p, ImagePart) else p.text) for p in parts]


def make_bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# --- what is dropped -----------------------------------------------------------------------------------------


def test_every_planted_fault_is_found_and_nothing_else(tmp_path: Path) -> None:
    planted = write_planted(tmp_path)
    intake = read_samples(tmp_path / "manifest.json", tmp_path / "images", DEMO, Split.LABELLED)
    assert {d.sample_id: d.reason for d in intake.dropped} == planted
    assert len(intake.kept) == 20
    assert {"1008", "demo-0417"} <= {s.id for s in intake.kept}


def test_an_intake_that_keeps_nothing_is_no_error(tmp_path: Path) -> None:
    write_planted(tmp_path, only_broken=True)
    intake = read_samples(tmp_path / "manifest.json", tmp_path / "images", DEMO, Split.LABELLED)
    assert (len(intake.kept), len(intake.dropped), intake.read) == (0, 21, 21)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([1], Reason.NOT_AN_OBJECT),
        ({"instruction": SHOWN}, Reason.MISSING_FIELD),
        (item(id=" "), Reason.MISSING_FIELD),
        (item(id=True), Reason.MISSING_FIELD),
        ({"id": "x", "image": "a.png", "output": "商品页"}, Reason.MISSING_FIELD),
        (item(instruction=7), Reason.INSTRUCTION_NOT_TEXT),
        (item(instruction="<image>这是什么"), Reason.UNRECOGNISED),
        (item(instruction=SAID, image=None, output="询问尺码"), None),
        (item(instruction="你是一个网店客服助手，分类标签:[]", image=[], output="询问尺码"), Reason.EMPTY_ITEM),
        (item(output=""), Reason.MISSING_LABEL),
        (item(output=None), Reason.MISSING_LABEL),
        (item(output="退款"), Reason.UNKNOWN_LABEL),
        (item(output=["商品页"]), Reason.UNKNOWN_LABEL),
        (item(output="退款页"), Reason.LABEL_NOT_OFFERED),
        (item(image={"path": "a.png"}), Reason.IMAGE_NOT_A_NAME),
        (item(image=["a.png", 3]), Reason.IMAGE_NOT_A_NAME),
        (item(image=["a.png", "a.png"]), Reason.PLACEHOLDER_MISMATCH),
        (item(image=""), Reason.PLACEHOLDER_MISMATCH),
        (item(image="no.png"), Reason.IMAGE_MISSING),
        (item(image="."), Reason.IMAGE_MISSING),
        (item(image="a\0.png"), Reason.IMAGE_MISSING),
        (item(image="x" * 300), Reason.IMAGE_MISSING),
        (item(image="loop"), Reason.IMAGE_MISSING),
        (item(image="../train.json"), Reason.PATH_ESCAPES),
        (item(image="/etc/hosts"), Reason.PATH_ESCAPES),
        (item(image="out.png"), Reason.PATH_ESCAPES),
        (item(image="sub/../a.png"), None),
        (item(image="in.png"), None),
        (item(image="empty.png"), Reason.IMAGE_EMPTY),
        (item(image="page.png"), Reason.NOT_AN_IMAGE),
        (item(image="drawing.eps"), Reason.NOT_AN_IMAGE),
        (item(image="head.png"), Reason.IMAGE_TRUNCATED),
        (item(image="half.png"), Reason.IMAGE_TRUNCATED),
        (item(image="half.jpg"), Reason.IMAGE_TRUNCATED),
        (item(image="bomb9000.png"), Reason.IMAGE_TOO_LARGE),
        (item(image="bomb11000.png"), Reason.IMAGE_TOO_LARGE),
        (item(image="bomb30000.png"), Reason.IMAGE_TOO_LARGE),
        (item(instruction=SHOWN + "<video>"), Reason.PLACEHOLDER_MISMATCH),
        (item(instruction=SAID.replace("在吗", "听 <|AUDIO|>"), image=[], output="询问尺码"), Reason.UNSUPPORTED_MEDIA),
        (item(output="\ud800"), Reason.NOT_UTF8),
        (item(image=["\ud800.png"]), Reason.NOT_UTF8),
    ],
)
def test_one_bad_item_leaves_with_its_reason_and_the_good_one_stays(
    images: Path, tmp_path: Path, bad: Any, reason: Reason | None
) -> None:
    noise = Image.effect_noise((64, 64), 90)
    for name in ("half.png", "half.jpg"):
        noise.save(images / name)
        (images / name).write_bytes((images / name).read_bytes()[:-700])
    (images / "head.png").write_bytes((images / "a.png").read_bytes()[:20])
    (images / "empty.png").touch()
    (images / "page.png").write_text("<html>404</html>")
    (images / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    for side in (9000, 11000, 30000):
        (images / f"bomb{side}.png").write_bytes(make_bomb(side))
    (tmp_path / "outside.png").write_bytes((images / "a.png").read_bytes())
    (images / "out.png").symlink_to(tmp_path / "outside.png")
    (images / "in.png").symlink_to("a.png")
    (images / "loop").symlink_to("loop")
    (images / "sub").mkdir()
    manifest = tmp_path / "train.json"
    manifest.write_text(json.dumps([item(id="good"), bad]))
    intake = read_samples(manifest, images, DEMO, Split.LABELLED)
    assert [s.id for s in intake.kept][:1] == ["good"]
    assert [d.reason for d in intake.dropped] == ([] if reason is None else [reason])
    assert all(d.sample_id in ("a", "x", "item-2") and d.detail.startswith("item 2: ") for d in intake.dropped)


def test_the_pixel_limit_is_the_callers(images: Path) -> None:
    assert reasons(read(images, item(), max_image_pixels=1199)) == [("a", "image_too_large")]
    assert reasons(read(images, item(), max_image_pixels=1200)) == []


def test_all_later_items_of_an_id_are_duplicates(images: Path) -> None:
    intake = read(images, item(id=7), item(id="7"), item(id="b"), item(id=7.0))
    assert [s.id for s in intake.kept] == ["7", "b"]
    assert reasons(intake) == [("7", "duplicate_id")] * 2
    assert intake.dropped[1].detail == "item 4: id `7` is already used by item 1"


def test_items_of_one_id_with_different_labels_are_all_refused(images: Path) -> None:
    intake = read(images, item(), item(id="b"), item(output="支付页"), item())
    assert [s.id for s in intake.kept] == ["b"]
    assert reasons(intake) == [("a", "conflicting_labels")] * 3
    assert intake.dropped[0].detail == (
        "item 1: id `a` has the label `商品页` in item 1 but `支付页` in item 3; keep the right one"
    )
    assert len(read(images, item(), item(output="支付页"), split=Split.UNLABELLED).kept) == 1


def test_a_broken_item_does_not_block_its_good_redelivery(images: Path) -> None:
    intake = read(images, item(image="lost.png"), item(instruction=7), item(), item())
    assert [s.id for s in intake.kept] == ["a"]
    assert reasons(intake) == [("a", r) for r in ("image_missing", "instruction_not_text", "duplicate_id")]
    assert intake.dropped[2].detail == "item 4: id `a` is already used by item 3"


@pytest.mark.parametrize("identity", [1727340000000000001.0, -(2.0**53), "1.72734E+18"])
def test_an_id_that_was_rounded_is_refused(images: Path, identity: object) -> None:
    intake = read(images, item(id=identity), item(id=2.0**53 - 1), item(id="1e5"))
    assert [s.id for s in intake.kept] == ["9007199254740991", "1e5"]
    assert [d.reason for d in intake.dropped] == ["rounded_id"]
    assert "store ids as text" in intake.dropped[0].detail


def test_keys_that_nothing_reads_are_counted(images: Path) -> None:
    items = (
        item(input="用户: 在吗", videos=[]),
        item(id="b", input="", videos=["v.mp4"]),
        item(id="c", input="用户: 好"),
    )
    intake = read(images, *items)
    assert intake.unread == {"input": 2, "videos": 1}
    assert read(images, item()).unread == {}


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_an_image_whose_white_is_unknown_is_refused(images: Path, mode: str) -> None:
    Image.new(mode, (40, 30)).save(images / "deep.tif")
    assert reasons(read(images, item(image="deep.tif"))) == [("a", "image_depth")]


def test_labels_by_split(images: Path) -> None:
    unlabelled = item(id="n")
    del unlabelled["output"]
    items = [item(), item(id="u", output="是什么"), unlabelled]
    assert [s.given for s in read(images, *items, split=Split.UNLABELLED).kept] == [None, None, None]
    test = read(images, *items, split=Split.TEST)
    assert [(s.id, s.given) for s in test.kept] == [("a", "商品页"), ("n", None)]
    assert reasons(test) == [("u", "unknown_label")]
    assert reasons(read(images, *items)) == [("u", "unknown_label"), ("n", "missing_label")]


# --- what is kept --------------------------------------------------------------------------------------------


def test_an_image_is_measured_as_shown_and_hashed(images: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(images / "turned.jpg", exif=exif)
    calls: list[tuple[int, int]] = []
    intake = read(
        images, item(), item(id="b", image="turned.jpg"), item(id="c"), progress=lambda *done: calls.append(done)
    )
    plain, turned, again = (s.images[0] for s in intake.kept)
    assert (plain.width, plain.height, turned.width, turned.height) == (40, 30, 30, 40)
    assert again == plain and Path(plain.path) == (images / "a.png").resolve()
    assert len(plain.sha256) == 64 and plain.sha256 != turned.sha256
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("listed", "labels"),
    [
        ('分类标签:["支付页","自定页"]。', ("支付页", "自定页")),
        ("分类标签：['支付页', '自定页']", ("支付页", "自定页")),
        ("以下是可以参考的分类标签，分类标签：支付页、自定页。", ("支付页", "自定页")),
        ("分类标签为：[支付页，自定页]\n", ("支付页", "自定页")),
        ("", tuple(DEMO.task("image").labels)),
    ],
)
def test_the_items_own_list_wins(images: Path, listed: str, labels: tuple[str, ...]) -> None:
    text = f"Picture 1: <image>\n你是一个网店识图助手，请判断。{listed}"
    (sample,) = read(images, item(instruction=text, output=labels[1])).kept
    assert sample.labels == labels
    assert sample.given == labels[1]
    assert summarise_parts(sample.parts) == [(0, "IMAGE")]


def test_both_tasks_of_the_challenge_are_cut_to_what_is_their_own(images: Path) -> None:
    few = ("账单/账户页面", "店铺页面")
    offered = json.dumps(few, ensure_ascii=False, separators=(",", ":"))
    shown = (
        "Picture 1: <image>\n你是一个电商领域识图专家,可以理解消费者上传的软件截图或实物拍摄图。现在,请你对消费者上传"
        f"的图片进行分类。你只需要回答图片分类结果,不需要其他多余的话。以下是可以参考的分类标签,分类标签:{offered}。"
    )
    said = (
        "你是一个电商客服专家，请根据用户与客服的多轮对话判断用户的意图分类标签。\n<用户与客服的对话 START>\n"
        "用户: <http>\n"
        '客服: 您好，分类标签:["客服说的"]\n用户: <image><image>\n这个会\n漏水吗\n<用户与客服的对话 END>\n'
        '请直接只输出分类标签结果，不需要其他多余的话。以下是可以参考的分类标签为：["反馈密封性不好","是否好用"]\n'
    )
    picture, dialogue = read(
        images,
        item(instruction=shown, output="账单/账户页面"),
        item(id="b", instruction=said, image=["a.png", "a.png"], output="是否好用"),
        pack=WWW,
    ).kept
    assert (picture.task, summarise_parts(picture.parts)) == ("image", [(0, "IMAGE")])
    assert picture.labels == few
    assert (dialogue.task, dialogue.labels) == ("dialogue", ("反馈密封性不好", "是否好用"))
    assert summarise_parts(dialogue.parts) == [
        (1, "用户: <http>"),
        (2, '\n客服: 您好，分类标签:["客服说的"]'),
        (3, "\n用户: "),
        (3, "IMAGE"),
        (3, "IMAGE"),
        (3, "\n这个会\n漏水吗"),
    ]


def test_both_tasks_of_the_demo_are_cut(images: Path) -> None:
    crlf = SAID.replace("在吗", "Picture 1: 是我发的\n客服：在").replace("\n", "\r\n")
    picture, dialogue = read(images, item(), item(id="b", instruction=crlf, image=[], output="询问尺码")).kept
    assert summarise_parts(picture.parts) == [(0, "IMAGE")]
    assert summarise_parts(dialogue.parts) == [(1, "用户: Picture 1: 是我发的"), (2, "\n客服：在")]
    assert dialogue.labels == tuple(DEMO.task("dialogue").labels)


def test_only_a_list_outside_the_dialogue_counts(images: Path) -> None:
    quoted = SAID.replace("在吗", '为什么写着 分类标签:["退款"]')
    role, rest = SAID.split("\n", 1)
    before = f'{role}分类标签:["询问尺码","查询物流"]。\n{rest}'
    inside, ahead = read(
        images,
        item(instruction=quoted, image=[], output="询问尺码"),
        item(id="b", instruction=before, image=[], output="询问尺码"),
    ).kept
    assert inside.labels == tuple(DEMO.task("dialogue").labels)
    assert summarise_parts(inside.parts) == [(1, '用户: 为什么写着 分类标签:["退款"]')]
    assert ahead.labels == ("询问尺码", "查询物流")
    assert summarise_parts(ahead.parts) == [(1, "用户: 在吗")]


# --- other columns, other kinds of answer --------------------------------------------------------------------

CAPTIONS = load_pack("captions")


def read_csv(images: Path, *lines: str, pack: Any = CAPTIONS, split: Split = Split.LABELLED) -> Intake:
    manifest = images.parent / "captions.csv"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    return read_samples(manifest, images, pack, split)


def test_captions_are_read_from_two_columns(images: Path) -> None:
    (images / "sub").mkdir()
    (images / "sub" / "b.png").write_bytes((images / "a.png").read_bytes())
    intake = read_csv(
        images,
        "caption,note,image_path",
        "一只杯子,x,a.png",
        '"红的, 大的",x,sub/b.png',
        "又一句,x,a.png",
        " ,x,c.png",
        "没有图,x,",
        "少一格,x",
        "不在,x,d.png",
    )
    assert [(s.id, s.task, s.labels, s.given, summarise_parts(s.parts)) for s in intake.kept] == [
        ("a.png", "caption", (), "一只杯子", [(0, "IMAGE")]),
        ("sub/b.png", "caption", (), "红的, 大的", [(0, "IMAGE")]),
    ]
    assert [(d.sample_id, d.reason) for d in intake.dropped] == [
        ("a.png", Reason.DUPLICATE_ID),
        ("c.png", Reason.MISSING_LABEL),
        ("item-5", Reason.MISSING_FIELD),
        ("item-6", Reason.MALFORMED),
        ("d.png", Reason.IMAGE_MISSING),
    ]
    assert "has no `caption`" in intake.dropped[1].detail and "has no `image_path`" in intake.dropped[2].detail


def test_captions_may_be_lines_of_json_with_several_images(images: Path) -> None:
    (images / "b.png").write_bytes((images / "a.png").read_bytes())
    rows = [{"image_path": ["a.png", "b.png"], "caption": "两张"}, {"image_path": "a.png", "caption": 5}]
    intake = read(images, *rows, {"image_path": 7, "caption": "x"}, pack=CAPTIONS)
    assert [(s.id, len(s.images), s.given) for s in intake.kept] == [("a.png,b.png", 2, "两张")]
    assert reasons(intake) == [("a.png", Reason.OUTPUT_NOT_TEXT), ("item-3", Reason.IMAGE_NOT_A_NAME)]
    pool = read(images, {"image_path": "a.png", "caption": "x"}, pack=CAPTIONS, split=Split.UNLABELLED)
    assert [s.given for s in pool.kept] == [None]


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_a_column_that_is_not_there_is_named_with_the_pack_that_names_it(images: Path, name: str) -> None:
    manifest = images.parent / name
    frame = pd.DataFrame({"file": ["a.png"], "caption": ["x"]})
    frame.to_csv(manifest, index=False) if name.endswith("csv") else frame.to_parquet(manifest)
    with pytest.raises(ManifestError, match=r"no column `image_path`, only file, caption;.*`columns` of pack\.yaml"):
        read_samples(manifest, images, CAPTIONS, Split.LABELLED)


def test_captions_come_from_parquet_too(images: Path) -> None:
    manifest = images.parent / "m.parquet"
    pd.DataFrame({"image_path": ["a.png"], "caption": ["一只杯子"], "vector": [[1.0]]}).to_parquet(manifest)
    intake = read_samples(manifest, images, CAPTIONS, Split.LABELLED)
    assert [(s.id, s.given) for s in intake.kept] == [("a.png", "一只杯子")]


def test_labelled_images_need_neither_id_nor_instruction(images: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TEMPLATES / "demo", tmp_path / "mine"))
    content = yaml.safe_load((folder / "pack.yaml").read_text(encoding="utf-8"))
    content["columns"] = {"image": "file", "output": "class"}
    content["tasks"] = {"image": {"labels": content["tasks"]["image"]["labels"]}}
    (folder / "pack.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    intake = read_csv(images, "file,class", "a.png,商品页", "b.png,别的", pack=load_pack(folder))
    assert [(s.id, s.given, len(s.labels), summarise_parts(s.parts)) for s in intake.kept] == [
        ("a.png", "商品页", 10, [(0, "IMAGE")])
    ]
    assert reasons(intake) == [("b.png", Reason.UNKNOWN_LABEL)]
