import pytest

from tasks.media import Box, ImageRef
from tasks.prompts.boxes import THOUSANDTHS, BadBox, BoxFault, RawBox, check_box, compute_overlap, scale_box

PHONE = ImageRef(path="/phone.png", sha256="a", width=1080, height=2340)
BUTTON = Box(ref="退款", corners=(540, 2106, 810, 2223))


def test_a_box_in_another_grid_is_converted_to_pixels() -> None:
    assert check_box(RawBox("退款", (500, 900, 750, 950), None, THOUSANDTHS), [PHONE]) == BUTTON
    assert check_box(RawBox("退款", (252, 504, 378, 532), 0, (504, 560)), [PHONE]) == BUTTON


def test_a_box_keeps_its_place_in_any_grid() -> None:
    assert scale_box(BUTTON, PHONE, THOUSANDTHS) == (500, 900, 750, 950)
    assert scale_box(BUTTON, PHONE, (504, 560)) == (252, 504, 378, 532)
    for grid in (THOUSANDTHS, (756, 1624)):
        back = check_box(RawBox("退款", scale_box(BUTTON, PHONE, grid), None, grid), [PHONE])
        assert compute_overlap(back, BUTTON) > 0.98


def test_rounding_leaves_no_box_without_an_area_and_none_outside() -> None:
    assert scale_box(Box(corners=(10, 10, 10.2, 10.2)), PHONE, (100, 100)) == (1, 0, 2, 1)
    assert scale_box(Box(corners=(1079.5, 2339.5, 1080, 2340)), PHONE, (100, 100)) == (99, 99, 100, 100)


@pytest.mark.parametrize(
    ("numbers", "image", "fault"),
    [
        ((1, 2, 3), None, BoxFault.UNREADABLE),
        ((1, 2, 3, float("nan")), None, BoxFault.UNREADABLE),
        ((30, 2, 3, 40), None, BoxFault.REVERSED),
        ((3, 40, 30, 4), None, BoxFault.REVERSED),
        ((3, 4, 3, 40), None, BoxFault.DEGENERATE),
        ((3, 4, 30, 4), None, BoxFault.DEGENERATE),
        ((-9, 4, 30, 40), None, BoxFault.OUT_OF_RANGE),
        ((3, 4, 1090, 40), None, BoxFault.OUT_OF_RANGE),
        ((1080, 4, 1080.5, 40), None, BoxFault.OUT_OF_RANGE),
        ((3, 4, 30, 40), 1, BoxFault.WRONG_IMAGE),
        ((3, 4, 30, 40), -1, BoxFault.WRONG_IMAGE),
    ],
)
def test_what_is_wrong_with_a_box(numbers: tuple[float, ...], image: int | None, fault: BoxFault) -> None:
    with pytest.raises(BadBox) as caught:
        check_box(RawBox("", numbers, image), [PHONE])
    assert caught.value.fault is fault


def test_with_several_images_a_box_must_say_which() -> None:
    with pytest.raises(BadBox, match="which of the 2 images") as caught:
        check_box(RawBox("", (1, 2, 3, 4)), [PHONE, PHONE])
    assert caught.value.fault is BoxFault.WRONG_IMAGE


def test_a_rounded_edge_is_set_to_the_edge_of_the_image() -> None:
    assert check_box(RawBox("", (-0.4, 0, 1080.6, 9)), [PHONE]).corners == (0, 0, 1080, 9)


def test_overlap_is_the_shared_part_of_the_covered_area() -> None:
    one = Box(corners=(0, 0, 10, 10))
    assert compute_overlap(one, one) == 1
    assert compute_overlap(one, Box(corners=(5, 0, 15, 10))) == pytest.approx(1 / 3)
    assert compute_overlap(one, Box(corners=(10, 0, 20, 10))) == 0
    assert compute_overlap(one, Box(image=1, corners=(0, 0, 10, 10))) == 0
