"""Probes on the demo's screens and dialogues: small, but real data with planted wrong labels."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.dataset import write_demo
from tasks.errors import ConfigError, EngineError
from tasks.items.samples import read_samples
from tasks.media import ImagePart, Part, TextPart
from tasks.packs.pack import load_pack
from tasks.records import Outcome, Prediction, Sample, Split, content_digest
from tasks.students.folds import make_folds
from tasks.students.probe import ProbeRecipe, predict_probe
from tasks.students.probe_classifier import Features, fit
from tasks.students.probe_features import Vector, count_ngrams, describe_images, list_texts, pool_images
from tasks.students.probe_trees import fit_trees, score_by_trees
from tasks.students.settings import ProbeSpec
from tests.tasks.making import draw_numbered_video, image, sample

SPEC = ProbeSpec(folds=4, seed=3)


class Data:
    """The demo's labelled set with its truth and its images' features."""

    def __init__(self, folder: Path) -> None:
        paths = write_demo(folder / "d", labelled=260, unlabelled=4, test=4, broken=0)
        self.samples = read_samples(
            paths.labelled.manifest, paths.labelled.images, load_pack("demo"), Split.LABELLED
        ).kept
        lines = [json.loads(line) for line in paths.truth.read_text(encoding="utf-8").splitlines()]
        self.truth: dict[str, str] = {line["id"]: line["label"] for line in lines}
        self.images = describe_images(SPEC, self.samples)

    def few(self, n: int) -> list[Sample]:
        return self.samples[:n]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(tmp_path_factory.mktemp("data"))


def predict_out_of_fold(
    data: Data, images: Mapping[str, Vector], texts: Mapping[str, str], folder: Path, spec: ProbeSpec = SPEC
) -> dict[str, Prediction]:
    folds = make_folds(data.samples, spec.folds, spec.seed)
    predictions: dict[str, Prediction] = {}
    for fold in range(folds.k):
        train = [s for s in data.samples if folds.fold_of[s.id] != fold]
        held_out = [s for s in data.samples if folds.fold_of[s.id] == fold]
        home = ProbeRecipe(spec, spec.seed, texts, images).train(train, fold, folder / str(fold), lambda *_: None)
        predictions |= {p.sample_id: p for p in predict_probe(home, held_out, texts, images)}
    return predictions


@pytest.fixture(scope="module")
def predictions(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prediction]:
    return predict_out_of_fold(data, data.images, {}, tmp_path_factory.mktemp("probes"))


def measure_accuracy(predictions: Mapping[str, Prediction], data: Data, samples: Sequence[Sample]) -> float:
    return sum(predictions[s.id].label == data.truth[s.id] for s in samples) / len(samples)


def test_a_recording_counts_as_much_as_an_image_and_some_of_its_frames_are_described(tmp_path: Path) -> None:
    clip = draw_numbered_video(tmp_path, frames=20)
    still = image("still", clip.frames[5].path)
    item = sample("a", clip, still)
    features = describe_images(SPEC, [item])
    assert len(features) == 4 + 1 and {clip.frames[0].sha256, clip.frames[19].sha256, "still"} < set(features)
    of_frames = [vector for digest, vector in features.items() if digest != "still"]
    expected = (np.mean(of_frames, axis=0) + features["still"]) / 2
    assert np.allclose(pool_images([item], features)[0], expected)
    texts = {clip.sha256: "退款页", "still": "主页"}
    assert list_texts(item, texts)["shown"] == "主页\n退款页"


def test_out_of_fold_it_knows_most_true_labels(data: Data, predictions: dict[str, Prediction]) -> None:
    assert len(predictions) == len(data.samples) == 260
    screens = [s for s in data.samples if s.task == "image"]
    dialogues = [s for s in data.samples if s.task == "dialogue"]
    # chance is .1 and .125
    assert measure_accuracy(predictions, data, screens) > 0.8
    assert measure_accuracy(predictions, data, dialogues) > 0.5


def test_probabilities_are_the_items_own_and_sum_to_one(data: Data, predictions: dict[str, Prediction]) -> None:
    folds = make_folds(data.samples, SPEC.folds, SPEC.seed)
    for item in data.samples:
        prediction = predictions[item.id]
        assert tuple(prediction.probabilities) == item.labels
        assert math.isclose(sum(prediction.probabilities.values()), 1, abs_tol=1e-6)
        assert prediction.label == max(item.labels, key=lambda label: prediction.probabilities[label])
        assert prediction.outcome is Outcome.OK
        assert prediction.source == f"student/fold={folds.fold_of[item.id]}"
    assert len({p.model for p in predictions.values()}) == SPEC.folds


def test_planted_wrong_labels_are_less_probable(data: Data, predictions: dict[str, Prediction]) -> None:
    wrong = [s.given != data.truth[s.id] for s in data.samples]
    assert sum(wrong) == 31
    doubt = [-predictions[s.id].probabilities[s.given or ""] for s in data.samples]
    assert roc_auc_score(wrong, doubt) > 0.9


def test_confidence_is_about_as_high_as_agreement_with_the_given_labels(
    data: Data, predictions: dict[str, Prediction]
) -> None:
    confident = np.array([max(predictions[s.id].probabilities.values()) for s in data.samples])
    agrees = np.array([predictions[s.id].label == s.given for s in data.samples])
    assert abs(confident.mean() - agrees.mean()) < 0.1
    surer = confident > np.median(confident)
    assert agrees[surer].mean() > agrees[~surer].mean() + 0.15


def test_each_kind_of_feature_tells_something(data: Data, tmp_path: Path) -> None:
    blind = ProbeSpec(folds=4, seed=3, images="none")
    screens = [s for s in data.samples if s.task == "image"]
    assert measure_accuracy(predict_out_of_fold(data, {}, {}, tmp_path / "blind", blind), data, screens) < 0.3
    read = {s.images[0].sha256: f"页面 {data.truth[s.id]} 其他" for s in screens}
    assert measure_accuracy(predict_out_of_fold(data, {}, read, tmp_path / "read", blind), data, screens) > 0.9


def test_a_finished_probe_is_not_trained_again_and_a_new_one_is_the_same(data: Data, tmp_path: Path) -> None:
    train = data.few(60)
    folder = ProbeRecipe(SPEC, 5, {}, data.images).train(train, 2, tmp_path / "students" / "probe", lambda *_: None)
    assert sorted(p.name for p in folder.iterdir()) == ["probe.json", "probe.npz", "student.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["probe"]
    facts = json.loads((folder / "student.json").read_text("utf-8"))
    assert (facts["fold"], facts["seed"], facts["items"]) == (2, 5, 60)
    assert facts["trained_on"] == sorted(s.id for s in train)
    assert facts["trained_on_content"] == sorted({content_digest(s) for s in train})
    before = (folder / "student.json").stat().st_mtime_ns
    assert ProbeRecipe(SPEC, 5, {}, {}).train(train, 2, folder, lambda *_: None) == folder
    assert (folder / "student.json").stat().st_mtime_ns == before
    again = ProbeRecipe(SPEC, 5, {}, data.images).train(train[::-1], 2, tmp_path / "again", lambda *_: None)
    asked = data.samples[60:70]
    first, second = (list(predict_probe(f, asked, {}, data.images)) for f in (folder, again))
    assert first == second
    fewer = ProbeRecipe(SPEC, 5, {}, data.images).train(train[:50], 2, tmp_path / "fewer", lambda *_: None)
    assert next(predict_probe(fewer, asked, {}, data.images)).model != first[0].model


def test_a_label_that_training_never_showed_has_probability_zero(tmp_path: Path) -> None:
    train = [sample(f"a{i}", f"我要退款{i}") for i in range(4)]
    train += [sample(f"b{i}", f"包裹到哪了{i}", given="查询物流") for i in range(4)]
    folder = ProbeRecipe(SPEC, 0, {}, {}).train(train, 0, tmp_path / "p", lambda *_: None)
    (shares,) = [p.probabilities for p in predict_probe(folder, [sample("x", "包裹到哪里了")], {}, {})]
    assert shares["反馈破损"] == 0
    assert shares["查询物流"] > shares["申请退款"] > 0
    (strange,) = predict_probe(folder, [sample("y", "你好", labels=("甲", "乙"))], {}, {})
    assert (strange.outcome, strange.label, strange.probabilities) == (Outcome.FAILED, None, {})
    assert strange.source == "student/fold=0"


def test_rare_labels_and_few_items_do_not_stop_it(tmp_path: Path) -> None:
    train = [sample(f"a{i}", f"我要退款{i}") for i in range(40)]
    train += [sample(f"b{i}", f"包裹到哪了{i}", given="查询物流") for i in range(4)]
    train += [sample("c", "杯子碎了", given="反馈破损")]
    asked = [sample("x", "包裹到哪了呢"), sample("y", "我想退款"), sample("z", "杯子碎了一个")]
    folder = ProbeRecipe(SPEC, 0, {}, {}).train(train, 0, tmp_path / "p", lambda *_: None)
    assert [p.label for p in predict_probe(folder, asked, {}, {})] == ["查询物流", "申请退款", "反馈破损"]
    lonely = ProbeRecipe(SPEC, 0, {}, {}).train([sample("a", "我要退款")], 0, tmp_path / "one", lambda *_: None)
    assert [p.label for p in predict_probe(lonely, asked, {}, {})] == ["申请退款"] * 3


def test_an_image_that_is_gone_does_not_stop_it(data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = sample("gone", "看图", image("f" * 64, path=str(tmp_path / "gone.png")))
    assert describe_images(SPEC, [gone]) == {}
    assert "gone.png" in caplog.text
    folder = ProbeRecipe(SPEC, 0, {}, data.images).train(data.few(40), 0, tmp_path / "p", lambda *_: None)
    asked = gone.model_copy(update={"labels": data.samples[0].labels, "task": data.samples[0].task})
    assert [p.outcome for p in predict_probe(folder, [asked], {}, {})] == [Outcome.OK]


def test_a_vision_tower_sees_images_too(data: Data, tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", ["看图说话，这是一个页面"] * 20)
    spec = ProbeSpec(images="embeddings", embedding_model=str(base))
    screens = [s for s in data.samples if s.task == "image"][:60]
    features = describe_images(spec, screens)
    assert len(features) == len({s.images[0].sha256 for s in screens})
    assert {v.shape for v in features.values()} == {(128,)}
    folder = ProbeRecipe(spec, 0, {}, features).train(screens[:50], 0, tmp_path / "p", lambda *_: None)
    # even an untrained tower tells screens apart
    learnt = list(predict_probe(folder, screens[:50], {}, features))
    assert sum(p.label == s.given for p, s in zip(learnt, screens, strict=False)) > 25
    with pytest.raises(EngineError, match="the probe needs 128 features per image"):
        list(predict_probe(folder, screens[:2], {}, data.images))


def test_what_cannot_be_is_said(data: Data, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="embedding_model"):
        ProbeSpec(images="embeddings")
    with pytest.raises(ConfigError, match="fold 1"):
        ProbeRecipe(SPEC, 0, {}, {}).train([sample("a", given=None)], 1, tmp_path / "p", lambda *_: None)
    with pytest.raises(EngineError, match=str(tmp_path / "nothing")):
        list(predict_probe(tmp_path / "nothing", data.few(1), {}, {}))


def test_the_digest_follows_what_a_probe_is_made_of(data: Data) -> None:
    items = data.few(5)
    digest = ProbeRecipe(SPEC, 1, {}, {}).digest(items, 0)
    assert digest == ProbeRecipe(SPEC.model_copy(update={"folds": 9}), 1, {}, {}).digest(items[::-1], 0)
    read = {i.sha256: "字" for s in items for i in s.images}
    others = [
        ProbeRecipe(SPEC, 1, {}, {}).digest(items, 1),
        ProbeRecipe(SPEC, 2, {}, {}).digest(items, 0),
        ProbeRecipe(SPEC, 1, {}, {}).digest(items[1:], 0),
        ProbeRecipe(SPEC, 1, read, {}).digest(items, 0),
        ProbeRecipe(SPEC.model_copy(update={"images": "none"}), 1, {}, {}).digest(items, 0),
    ]
    assert len({digest, *others}) == 6


def test_the_landmarks_of_a_large_set_follow_the_seed() -> None:
    rows = np.random.default_rng(0).random((2005, 6), np.float32)
    labels = ["ab"[i % 2] for i in range(2005)]
    one, same, other = (
        fit(Features({}, rows), labels, ["ab"] * 2005, None, seed).arrays["landmarks"] for seed in (0, 0, 1)
    )
    assert one.shape == (2000, 6)
    assert (one == same).all() and (one != other).any()


def test_trees_stored_as_arrays_predict_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    rows, targets = rng.random((200, 5), np.float32), rng.integers(0, 3, 200)
    trees = fit_trees(rows, targets, 3, seed=4)
    forest = ExtraTreesClassifier(100, min_samples_leaf=3, max_features=0.1, random_state=4).fit(rows, targets)
    expected = np.log(forest.predict_proba(rows) + 0.01)
    assert score_by_trees(trees, rows) == pytest.approx(expected, abs=2e-3)


def test_what_a_user_says_is_found_by_the_name_of_the_last_speaker() -> None:
    turns = ("用户: 在吗", "客服: 在的", "用户：好了没", "用户: 要退货")
    parts = tuple(TextPart(text=f"{text}\n", turn=number) for number, text in enumerate(turns, 1))
    found = list_texts(sample("a").model_copy(update={"parts": parts, "user_turn": 4}), {})
    assert found["user"].split() == ["用户:", "在吗", "用户：好了没", *["用户:", "要退货"] * 3]
    assert found["dialogue"].count("客服") == 1
    assert list_texts(sample("b", "随便 什么: 文字"), {})["user"] == ""


def test_models_on_images_are_left_out_where_they_do_not_help() -> None:
    rng = np.random.default_rng(0)
    labels = [("退款", "发货")[i % 2] for i in range(80)]
    counts = count_ngrams([f"请问{label}{rng.integers(0, 99)}" for label in labels])
    noise, telling = rng.random((80, 8), np.float32), (np.arange(80) % 2)[:, None].astype(np.float32)
    parts = [i // 2 % 3 for i in range(80)]
    blind = fit(Features({"dialogue": counts}, noise), labels, [("退款", "发货")] * 80, parts, 0)
    assert not [name for name in blind.models if name.endswith("images")]
    seeing = fit(Features({"dialogue": counts * 0}, telling), labels, [("退款", "发货")] * 80, parts, 0)
    assert set(seeing.models) == {"ridge images", "trees images"}


def test_features_are_kept_and_used_again(data: Data, tmp_path: Path) -> None:
    first = describe_images(SPEC, data.few(20), tmp_path)
    gone = [s.model_copy(update={"parts": move_images(s, tmp_path / "gone")}) for s in data.few(20)]
    again = describe_images(SPEC, gone, tmp_path)
    assert first.keys() == again.keys() and all((again[digest] == vector).all() for digest, vector in first.items())
    assert describe_images(SPEC, gone, tmp_path / "elsewhere") == {}


def move_images(item: Sample, folder: Path) -> tuple[Part, ...]:
    return tuple(
        p if isinstance(p, TextPart) else ImagePart(image=p.image.model_copy(update={"path": str(folder / "x.png")}))
        for p in item.parts
    )


@pytest.mark.parametrize("size", [(28, 28), (60, 30)])
def test_a_border_of_one_colour_is_cut_off(tmp_path: Path, size: tuple[int, int]) -> None:
    def describe(left: int, top: int) -> Vector:
        picture = Image.new("RGB", (size[0] * 4, size[1] * 4), "white")
        picture.paste((200, 30, 30), (left, top, left + size[0], top + size[1]))
        picture.paste((30, 30, 200), (left + 10, top + 10, left + 20, top + 20))
        path = tmp_path / f"{left}-{top}.png"
        picture.save(path)
        (vector,) = describe_images(SPEC, [sample("a", image("f" * 64, path=str(path)))]).values()
        return vector

    assert describe(5, 9) == pytest.approx(describe(40, 22), abs=0.02)
