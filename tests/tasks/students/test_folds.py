import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, LeakageError
from tasks.records import Sample, content_digest
from tasks.students.folds import Folds, assign_unseen, check_out_of_fold, make_folds, number_groups
from tests.tasks.making import draw_numbered_video, image, sample

LABELS = ("申请退款", "查询物流", "反馈破损")


def make_samples(count: int, prefix: str = "s", labels: Sequence[str] = LABELS) -> list[Sample]:
    return [sample(f"{prefix}{i:03}", given=labels[i % len(labels)]) for i in range(count)]


def count_labels_by_fold(samples: Sequence[Sample], folds: Folds) -> dict[str, list[int]]:
    """Number of held-out items of each label in each fold."""
    counts = Counter((s.given, folds.fold_of.get(s.id)) for s in samples)
    return {str(label): [counts[label, fold] for fold in range(folds.k)] for label in {s.given for s in samples}}


# --- the first split -----------------------------------------------------------------------------------------


def test_every_item_is_in_one_fold_and_labels_are_spread_evenly() -> None:
    folds = make_folds(make_samples(60), 5, seed=0)
    assert sorted(folds.fold_of) == [f"s{i:03}" for i in range(60)] and folds.always_train == ()
    assert count_labels_by_fold(make_samples(60), folds) == dict.fromkeys(LABELS, [4] * 5)


def test_folds_depend_on_seed_and_repeat_and_not_on_the_order_of_the_items() -> None:
    samples = [sample(f"s{i:03}", image(str(i // 2)), given=LABELS[i % 3]) for i in range(60)]
    order = random.Random(1).sample(range(60), 60)
    shuffled = [samples[i] for i in order]
    links = [(0, 59), (7, 30)]
    elsewhere = [(order.index(b), order.index(a)) for a, b in links]
    plain = make_folds(samples, 5, seed=0, links=links)
    assert plain == make_folds(shuffled, 5, seed=0, links=elsewhere)
    assert plain.digest == make_folds(shuffled, 5, seed=0, links=elsewhere).digest
    others = [make_folds(samples, 5, seed, repeat=repeat) for seed in (0, 1) for repeat in (0, 1, 2)]
    assert len({folds.digest for folds in others}) == 6
    assert others[0] == make_folds(samples, 5, seed=0) and others[2] == make_folds(shuffled, 5, seed=0, repeat=2)


DIALOGUE = ("用户: 这件外套我穿着有点小，想换大一号的。", "\n客服: 好的。", "\n用户: 那怎么寄回？")


def test_groups_are_joined_by_any_shared_image_by_equal_content_by_beginnings_and_by_links() -> None:
    samples = [
        sample("a", image("1"), image("2")),
        sample("b", "用户: 一"),
        sample("c", image("3")),
        sample("d", image("2"), "文", image("3")),  # joins a and c
        sample("e", "用户: 一", given="查询物流"),
        sample("f", "用户: 二"),
        sample("g", *DIALOGUE),
        sample("h", DIALOGUE[0]),
    ]
    assert number_groups(samples) == [0, 1, 0, 0, 1, 2, 3, 3]
    assert number_groups(samples, [(5, 0), (6, 4)]) == [0, 1, 0, 0, 1, 0, 1, 1]
    assert number_groups([]) == []


def test_items_with_one_recording_are_in_one_group(tmp_path: Path) -> None:
    clip, other = draw_numbered_video(tmp_path), draw_numbered_video(tmp_path, 40)
    items = [sample("a", "问", clip), sample("b", other), sample("c", "另问", other, clip), sample("d", "文")]
    assert number_groups(items) == [0, 0, 0, 1]


def test_sizes_of_groups_and_the_largest_are_reported() -> None:
    samples = [sample(f"s{i:03}", image(str(max(0, 6 - i // 4))), given=LABELS[i % 2]) for i in range(28)]
    folds = make_folds([*samples, *make_samples(12, "t")], 3, seed=0, links=[(0, 1), (0, 4)])
    assert folds.group_sizes == {4: 5, 8: 1, 1: 12} and folds.groups == 18
    assert folds.largest_groups[0] == tuple(f"s{i:03}" for i in range(8))
    assert folds.largest_groups[1:] == tuple(tuple(f"s{i + j:03}" for j in range(4)) for i in (8, 12, 16, 20))
    assert make_folds(make_samples(12), 3, seed=0).largest_groups == ()


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        pytest.param([], "at least 3 different items", id="nothing"),
        pytest.param([sample(f"s{i}", "用户: 同") for i in range(9)], "at least 3 different items", id="one group"),
        pytest.param([sample(f"s{i}", given=f"label {i}") for i in range(9)], "only 0 have", id="all labels rare"),
        pytest.param(
            [sample(f"s{i}", image(LABELS[i % 2]), given=LABELS[i % 2]) for i in range(9)],
            "only 2 have",
            id="two groups",
        ),
        pytest.param(
            [sample(f"s{i}", image(str(i)), given=LABELS[i // 3]) for i in range(9)]
            + [sample(f"r{i}", image(str(3 * i)), given=f"rare {i}") for i in range(3)],
            "no label has 3 items that can be held out, the most frequent has 2",
            id="too few beside rare ones",
        ),
    ],
)
def test_too_little_for_so_many_folds_is_an_error_that_names_the_key(samples: list[Sample], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"student\.folds: .*{why}"):
        make_folds(samples, 3, seed=0)


def test_content_is_what_is_shown_and_said() -> None:
    plain = content_digest(sample("a", "用户: 一", image("1")))
    assert plain == content_digest(sample("b", "用户: 一", image("1", "/elsewhere.png"), given="查询物流"))
    assert plain != content_digest(sample("a", image("1"), "用户: 一"))
    assert plain != content_digest(sample("a", "用户: 一", image("2")))


# --- what is never held out ----------------------------------------------------------------------------------


def test_rare_labels_are_named_and_stay_in_training_with_their_groups() -> None:
    rare = [sample("x", image("1"), given="询问优惠"), sample("y", given="询问优惠")]
    company = [sample("z", image("1"), image("2")), sample("zz", image("2"))]
    folds = make_folds([*make_samples(30), *rare, *company], 5, seed=0)
    assert folds.rare == {"询问优惠": 2}
    assert folds.always_train == ("x", "y", "z", "zz")
    assert sorted(folds.fold_of) == [f"s{i:03}" for i in range(30)]


def test_a_label_that_is_one_group_stays_in_training_too() -> None:
    together = [sample(f"x{i}", image("1"), given="询问优惠") for i in range(7)]
    folds = make_folds([*make_samples(30), *together], 5, seed=0)
    assert folds.rare == {"询问优惠": 7} and folds.always_train == tuple(f"x{i}" for i in range(7))


# --- for any set ---------------------------------------------------------------------------------------------


def check_folds(samples: Sequence[Sample], folds: Folds, links: Sequence[tuple[int, int]] = ()) -> None:
    """Whatever the set: the promises of make_folds."""
    ids = {s.id for s in samples}
    assert folds.fold_of.keys() | set(folds.always_train) == ids and not folds.fold_of.keys() & set(folds.always_train)
    assert set(folds.fold_of.values()) <= set(range(folds.k))
    members: dict[int, list[Sample]] = defaultdict(list)
    for one, group in zip(samples, number_groups(samples, links), strict=True):
        members[group].append(one)
    for group in members.values():
        assert len({folds.fold_of.get(s.id) for s in group}) == 1
        held_out = folds.fold_of.get(group[0].id) is not None
        assert held_out == (not any(s.given in folds.rare for s in group))
    assert folds.group_sizes == Counter(map(len, members.values())) and folds.groups == len(members)
    counts = Counter(s.given for s in samples)
    assert {label for label, n in counts.items() if n < folds.k} <= folds.rare.keys()
    assert folds.rare == {label: counts[label] for label in folds.rare}
    for fold in range(folds.k):
        taught = {s.given for s in samples if folds.fold_of.get(s.id) != fold}
        assert taught == set(counts)


Drawn = tuple[list[Sample], list[tuple[int, int]]]


@st.composite
def draw_sets(draw: st.DrawFn) -> Drawn:
    """Up to 60 items of up to 7 labels, some of them rare, that share images here and there; and some links."""
    count = draw(st.integers(6, 60))
    rng = random.Random(draw(st.integers(0, 10**6)))
    labels, share = draw(st.integers(1, 7)), draw(st.sampled_from([0, 0.1, 0.3]))
    samples: list[Sample] = []
    for i in range(count):
        shown = {rng.randrange(count) for _ in range(3) if rng.random() < share}
        label = f"label {min(rng.randrange(labels), rng.randrange(labels))}"
        samples.append(sample(f"s{i:02}", f"t{i}", *(image(str(n)) for n in sorted(shown)), given=label))
    rng.shuffle(samples)
    links = [(rng.randrange(count), rng.randrange(count)) for _ in range(draw(st.integers(0, 6)))]
    return samples, links


@settings(deadline=None)
@given(draw_sets(), st.integers(2, 5), st.integers(0, 3), st.integers(0, 2))
def test_the_promises_hold_for_any_set(drawn: Drawn, k: int, seed: int, repeat: int) -> None:
    samples, links = drawn
    try:
        folds = make_folds(samples, k, seed, repeat=repeat, links=links)
    except ConfigError:
        held = find_held_groups(samples, links, k)
        # with few groups a fold, the first split may hold out a label as a whole, and too little is left without it
        assert len(held) < 3 * k or count_most_frequent(held) < k
        return
    check_folds(samples, folds, links)
    assert set(folds.fold_of.values()) == set(range(k)) and folds.moved == ()


def find_held_groups(samples: Sequence[Sample], links: Sequence[tuple[int, int]], k: int) -> dict[int, list[Sample]]:
    """Groups without any label that must stay in training: too few items, or all in one group."""
    groups: dict[int, list[Sample]] = defaultdict(list)
    for one, group in zip(samples, number_groups(samples, links), strict=True):
        groups[group].append(one)
    rare = {label for label, n in Counter(s.given for s in samples).items() if n < k}
    alone = {s.given for s in samples if sum(s.given in {m.given for m in g} for g in groups.values()) == 1}
    return {n: g for n, g in groups.items() if not any(s.given in rare | alone for s in g)}


def count_most_frequent(groups: dict[int, list[Sample]]) -> int:
    return max(Counter(s.given for group in groups.values() for s in group).values())


# --- later runs ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_items_keep_their_folds_while_others_come_in_any_order(seed: int, k: int) -> None:
    """Single items: nobody ever moves, and each label is spread over the folds as evenly as it goes."""
    rng = random.Random(seed)
    waiting = make_samples(60, labels=[*LABELS, "申请退款", "申请退款", "询问优惠"])
    rng.shuffle(waiting)
    here, waiting = waiting[:24], waiting[24:]
    folds = make_folds(here, k, seed)
    while waiting:
        some = rng.randint(1, 12)
        here, waiting = [*here, *waiting[:some]], waiting[some:]
        rng.shuffle(here)
        later = make_folds(here, k, seed + 1, recorded=folds.fold_of)
        assert later.fold_of | folds.fold_of == later.fold_of and later.moved == ()
        check_folds(here, later)
        assert all(max(held) - min(held) <= 1 for held in count_labels_by_fold(here, later).values())
        sizes = Counter(later.fold_of.values())
        assert max(sizes.values()) - min(sizes.values()) <= 4
        folds = later


@settings(deadline=None)
@given(draw_sets(), st.integers(2, 4), st.integers(0, 10**6))
def test_only_grown_groups_and_newly_rare_labels_move(drawn: Drawn, k: int, seed: int) -> None:
    """Items come and go, groups grow together: who moves has a reason, and the promises hold."""
    samples, links = drawn
    rng = random.Random(seed)
    before = [s for s in samples if rng.random() < 0.7]
    after = [(i, s) for i, s in enumerate(samples) if rng.random() < 0.9]
    place = {i: n for n, (i, _) in enumerate(after)}
    kept_links = [(place[a], place[b]) for a, b in links if a in place and b in place]
    now = [s for _, s in after]
    try:
        folds = make_folds(before, k, 0)
        later = make_folds(now, k, 0, recorded=folds.fold_of, links=kept_links)
    except ConfigError:
        return
    check_folds(now, later, kept_links)
    known = [i for i in folds.fold_of if i in {s.id for s in now}]
    assert set(later.moved) == {i for i in known if later.fold_of.get(i) != folds.fold_of[i]}
    members: dict[int, list[str]] = defaultdict(list)
    for one, group in zip(now, number_groups(now, kept_links), strict=True):
        members[group].append(one.id)
    for group in members.values():
        came_from = Counter(folds.fold_of[i] for i in group if i in folds.fold_of)
        for i in set(group) & set(later.moved):
            assert i in later.always_train or came_from[later.fold_of[i]] == max(came_from.values())
            assert i in later.always_train or len(came_from) > 1


def test_a_new_item_follows_what_it_is_linked_to_and_the_smaller_part_moves_to_the_larger() -> None:
    old = [*make_samples(30), *(sample(f"x{i}", image("1")) for i in range(3)), sample("y", image("2"))]
    recorded = make_folds(old, 5, seed=0).fold_of | {"x0": 1, "x1": 1, "x2": 1, "y": 3}
    follower = make_folds([*old, sample("new", image("2"), given="查询物流")], 5, 0, recorded=recorded)
    assert follower.fold_of["new"] == 3 and follower.moved == ()
    bridge = make_folds([sample("new", image("2"), image("1")), *old], 5, 0, recorded=recorded)
    assert {bridge.fold_of[i] for i in ("x0", "x1", "x2", "y", "new")} == {1} and bridge.moved == ("y",)
    linked = make_folds([*old, sample("new", image("2"))], 5, 0, recorded=recorded, links=[(34, 30), (34, 0)])
    assert linked.fold_of["new"] == linked.fold_of["s000"] == 1
    assert linked.moved == (("y",) if recorded["s000"] == 1 else ("s000", "y"))


def test_a_recorded_group_that_a_rare_item_joins_leaves_the_folds_and_says_so() -> None:
    old = [*make_samples(30), sample("x", image("1"))]
    recorded = make_folds(old, 5, seed=0).fold_of
    folds = make_folds([*old, sample("new", image("1"), given="询问优惠")], 5, 0, recorded=recorded)
    assert folds.always_train == ("new", "x") and folds.moved == ("x",)
    assert folds.fold_of == {i: f for i, f in recorded.items() if i != "x"}


def test_a_label_that_is_rare_no_longer_is_spread_over_the_folds() -> None:
    few = make_samples(4, "x", ["询问优惠"])
    first = make_folds([*make_samples(30), *few], 5, seed=0)
    assert len(first.always_train) == 4
    now = [*make_samples(30), *few, sample("y", given="询问优惠")]
    later = make_folds(now, 5, seed=0, recorded=first.fold_of)
    assert count_labels_by_fold(now, later)["询问优惠"] == [1] * 5 and later.rare == {} and later.moved == ()


def test_removing_items_keeps_the_rest_and_new_ones_fill_the_gap() -> None:
    first = make_folds(make_samples(60), 5, seed=0)
    left = [s for s in make_samples(60) if first.fold_of[s.id] != 2 or s.given == LABELS[0]]
    later = make_folds(left, 5, seed=9, recorded=first.fold_of)
    assert later.fold_of == {s.id: first.fold_of[s.id] for s in left} and later.moved == ()
    refilled = make_folds([*left, *make_samples(8, "t", LABELS[1:])], 5, seed=9, recorded=later.fold_of)
    assert {refilled.fold_of[f"t{i:03}"] for i in range(8)} == {2}


def test_folds_of_another_number_or_of_other_items_are_not_followed() -> None:
    for k in (4, 6):
        recorded = make_folds(make_samples(60), k, seed=3).fold_of
        assert make_folds(make_samples(60), 5, seed=0, recorded=recorded) == make_folds(make_samples(60), 5, seed=0)
    strangers = make_folds(make_samples(60, "other"), 5, seed=3).fold_of
    assert make_folds(make_samples(60), 5, seed=0, recorded=strangers) == make_folds(make_samples(60), 5, seed=0)
    assert make_folds(make_samples(60), 5, seed=0, recorded={}) == make_folds(make_samples(60), 5, seed=0)


# --- leakage -------------------------------------------------------------------------------------------------


def test_a_student_that_saw_the_item_or_its_duplicate_is_refused() -> None:
    a, b = sample("a", image("1")), sample("b", image("2"))
    seen = {0: {content_digest(b)}, 1: {content_digest(a)}}
    check_out_of_fold([a, b], {"a": 0, "b": 1}, seen)
    with pytest.raises(LeakageError, match="item a: the student of fold 1"):
        check_out_of_fold([a, b], {"a": 1, "b": 1}, seen)
    twin = sample("twin", image("2", "/another/path.png"), given="反馈破损")
    with pytest.raises(LeakageError, match="item twin"):
        check_out_of_fold([twin], {"twin": 0}, seen)


def test_an_item_of_no_fold_has_nothing_to_check() -> None:
    check_out_of_fold([sample("rare")], {}, {0: {content_digest(sample("rare"))}})


def test_an_item_of_the_pool_is_asked_of_a_student_that_did_not_see_it() -> None:
    pool = [sample(f"p{i}", f"第{i}条") for i in range(30)]
    free = assign_unseen(pool, {0: set(), 1: set(), 2: set()})
    assert set(free.values()) == {0, 1, 2}
    seen = {0: {content_digest(s) for s in pool if free[s.id] == 0}, 1: set[str](), 2: set[str]()}
    moved = assign_unseen(pool, seen)
    assert {i for i in free if free[i] != moved[i]} == {i for i in free if free[i] == 0}
    everywhere = {fold: {content_digest(pool[0])} for fold in range(3)}
    assert "p0" not in assign_unseen(pool, everywhere)
