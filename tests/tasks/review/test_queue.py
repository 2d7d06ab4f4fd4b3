from tasks.records import ReviewCase
from tasks.review.queue import order_queue


def case(id: str, gain: float, source: str = "a.json") -> ReviewCase:
    return ReviewCase(sample_id=id, source=source, parts=(), labels=("x", "y"), given="x", candidate=None, gain=gain)


CASES = [case("1", 0.2), case("2", 0.9), case("3", 0.0), case("4", 0.5)]


def order(budget: int, *kept: str) -> str:
    return "".join(c.sample_id for c in order_queue(iter(CASES), budget, kept=kept))


def test_the_highest_gain_comes_first_and_no_more_than_the_budget() -> None:
    assert [order(budget) for budget in (0, 1, 3, 9)] == ["", "2", "241", "2413"]


def test_what_is_kept_stays_beyond_the_budget_in_the_place_of_its_gain() -> None:
    assert order(1, "3", "4") == "243"
    assert order(0, "1", "3") == "13"


def test_blind_cases_come_first_in_the_order_of_their_ids() -> None:
    blind = [case(i, 0.0).model_copy(update={"blind": True}) for i in "65"]
    assert "".join(c.sample_id for c in order_queue([*CASES, *blind], 9)) == "562413"


def test_equal_gains_are_ordered_by_source_and_id() -> None:
    cases = [case("2", 0.5, "b.json"), case("3", 0.5), case("1", 0.5, "b.json"), case("4", 0.5)]
    assert [(c.source, c.sample_id) for c in order_queue(cases, 3)] == [
        ("a.json", "3"),
        ("a.json", "4"),
        ("b.json", "1"),
    ]
