"""Unequal classes: what balanced training is worth, Bayes' rule for other class shares, and macro figures first."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

import frostline
from frostline import wording
from frostline.errors import BundleError, ConfigError
from frostline.stats import class_balance, intervals, metrics, probabilities
from frostline.training.examples import Examples
from frostline.training.loop import Epoch, predict_logits
from support.commands import SMALL, call, document, must, table
from support.photos import encoded, textured, write_folder
from support.training import CPU, RECIPE, Interrupted, bits, examples, figures, learn, same, small

MANY, FEW = 60, 12
CLASSES = ["bark", "moss", "reed"]


# ---- the arithmetic of shares ----------------------------------------------------------------------------------------


def shares(size: int) -> st.SearchStrategy[np.ndarray]:
    """`size` shares above 0, 1 in all."""
    return st.lists(st.floats(0.01, 1), min_size=size, max_size=size).map(lambda a: np.array(a) / sum(a))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """How likely each of a few sights is in each class (C, X), the shares before and after (C,), and a temperature."""
    classes, sights = draw(st.integers(2, 5)), draw(st.integers(2, 6))
    likely = np.stack([draw(shares(sights)) for _ in range(classes)])
    return likely, draw(shares(classes)), draw(shares(classes)), draw(st.floats(0.2, 5))


def posterior(likely: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Bayes' rule, (X, C)."""
    joint = (likely * prior[:, None]).T
    return joint / joint.sum(1, keepdims=True)


@given(worlds(), st.floats(-5, 5))
def test_shifted_logits_are_bayes_rule(world: Any, offset: float) -> None:
    likely, before, after, temperature = world
    logits = temperature * np.log(posterior(likely, before)) + offset  # calibrated at this temperature
    shifted = probabilities.for_prior(logits, temperature, before, after)
    assert np.allclose(probabilities.softmax(shifted, temperature), posterior(likely, after), rtol=1e-9, atol=1e-12)
    back = probabilities.for_prior(shifted, temperature, after, before)
    assert np.allclose(back, logits, atol=1e-9)


def test_a_share_of_nothing_rules_a_class_out_and_a_class_never_seen_is_left_alone() -> None:
    logits = np.log([[0.5, 0.3, 0.2]])
    out = probabilities.for_prior(logits, 1.0, np.array([0.5, 0.25, 0.25]), np.array([0.0, 0.5, 0.5]))
    assert probabilities.softmax(out, 1.0) == pytest.approx(np.array([[0, 0.6, 0.4]]))
    unseen = probabilities.for_prior(logits, 1.0, np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5]))
    assert probabilities.softmax(unseen, 1.0) == pytest.approx(np.array([[0.25, 0.15, 0.2]]) / 0.6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_shares_are_found_without_labels(temperature: float) -> None:
    """10,000 photos of three sights, in exactly the numbers that shares of 0.2 and 0.8 give."""
    likely, before = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), np.array([0.9, 0.1])
    logits = temperature * np.log(posterior(likely, before))
    seen = np.repeat(logits, [2200, 2800, 5000], axis=0)
    assert probabilities.estimate_prior(seen, temperature, before) == pytest.approx(np.array([0.2, 0.8]), abs=1e-6)


@pytest.mark.parametrize(
    "text", ["bark=7,moss=2, reed=1", "0.7,0.2,0.1", "70,20,10", "shares.csv", {"reed": 1, "moss": 2, "bark": 7}]
)
def test_shares_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shares.csv").write_text("class,share\nreed,1\nbark,7\nmoss,2\n", encoding="utf-8")
    assert probabilities.read_prior(text, CLASSES) == pytest.approx(np.array([0.7, 0.2, 0.1]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trian", "expected train, equal, estimate, a CSV file"),
        ("0.5,0.5", "a share for each of the 3 classes"),
        ("bark=1,mos=1,reed=1", "did you mean 'moss'?"),
        ("bark=1,moss=1", "no share for reed"),
        ("bark=1,bark=1,moss=1,reed=1", "'bark' is named twice"),
        ("1,-1,1", "the share of moss is '-1': expected a number"),
        ("1,nan,1", "the share of moss is 'nan'"),
        ("1,much,1", "the share of moss is 'much'"),
        ("0,0,0", "every share is 0"),
        ("none.csv", "No such file"),
        ("other.csv", "expected class,share"),
    ],
)
def test_shares_that_can_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.csv").write_text("label,count\nbark,1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(told)) as error:
        probabilities.read_prior(text, CLASSES)
    assert "\n" not in str(error.value)


# ---- weights and draws -----------------------------------------------------------------------------------------------


def test_the_weights_are_those_of_the_effective_number_of_samples() -> None:
    counts = np.array([6000, 60, 0, 12])
    weights = class_balance.class_weights(counts)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[2] == 0
    assert weights[1] / weights[0] == pytest.approx((1 - 0.9999**6000) / (1 - 0.9999**60))
    # what a loss weighted so has its minimum at: the posterior under shares in proportion to weight times count
    assert class_balance.represented(counts, "loss") == pytest.approx(weights * counts / counts.sum())
    assert class_balance.represented(counts, "sampling") == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert class_balance.represented(counts, "none") == pytest.approx(counts / 6072)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 4), st.integers(0, 99))
def test_every_class_is_drawn_equally_often_and_views_come_before_repeats(
    labels: list[int], views: int, seed: int
) -> None:
    classes = np.array(labels)
    photos, seen = class_balance.equal_draw(classes, views, np.random.default_rng(seed))
    again = class_balance.equal_draw(classes, views, np.random.default_rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip((photos, seen), again, strict=True))
    assert len(photos) == len(seen) == len(labels)
    per_class = [int((classes[photos] == c).sum()) for c in set(labels)]
    assert max(per_class) - min(per_class) <= 1
    times = np.bincount(photos, minlength=len(labels))
    for c in set(labels):
        assert np.ptp(times[classes == c]) <= 1
    for photo in np.unique(photos):
        per_view = np.bincount(seen[photos == photo], minlength=views)
        assert len(per_view) == views
        assert np.ptp(per_view) <= 1


def uneven(folder: Path, **options: Any) -> Examples:
    """20, 4 and 4 rows of the three classes."""
    data = examples(folder, **options)
    kept = [i for i in range(60) if i % 3 == 0 or i < 12]
    return Examples(data.store, [data.keys[i] for i in kept], data.labels[kept])


@pytest.mark.parametrize("robust", [0.0, 0.7])
def test_small_classes_weigh_more_in_either_loss(tmp_path: Path, robust: float) -> None:
    data, told = uneven(tmp_path), {}
    rare = np.flatnonzero(data.labels > 0)
    for way in ("none", "loss"):
        above = small()
        learn(above, data, recipe=replace(RECIPE, robust=robust, epochs=1), balance=way)
        told[way] = float(predict_logits(above, data, CPU).softmax(1)[rare, data.labels[rare]].mean())
    assert told["loss"] > told["none"] + 0.02


@pytest.mark.parametrize("way", ["loss", "sampling"])
def test_balanced_training_resumes_to_the_same_bits(tmp_path: Path, way: Any) -> None:
    data, validation = uneven(tmp_path / "a", views=2), uneven(tmp_path / "b", shuffled=True, seed=9)
    recipe = replace(RECIPE, views=2, epochs=6, patience=3)
    whole, plain = small(), small()
    state = learn(whole, data, validation, recipe=recipe, balance=way)
    learn(plain, data, validation, recipe=recipe)
    assert not same(bits(whole), bits(plain))

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise Interrupted

    options: dict[str, Any] = {"recipe": recipe, "balance": way, "checkpoint": tmp_path / "checkpoint.pt"}
    with pytest.raises(Interrupted):
        learn(small(), data, validation, on_epoch=stop, **options)
    resumed = small(seed=77)
    again = learn(resumed, data, validation, **options)
    assert figures(again) == figures(state)
    assert (again.best_epoch, again.lowest_loss) == (state.best_epoch, state.lowest_loss)
    assert same(bits(resumed), bits(whole))


@pytest.mark.parametrize("way", ["none", "loss", "sampling"])
def test_the_best_epoch_is_the_best_by_what_training_aims_at(tmp_path: Path, way: Any) -> None:
    """Plain validation loss without balance; with it, the mean of the classes' mean losses. The history stays plain."""
    data, validation = uneven(tmp_path / "a"), uneven(tmp_path / "b", shuffled=True, seed=9)
    above, plain, balanced = small(), [], []

    def watch(epoch: Epoch) -> None:
        logits = predict_logits(above, validation, CPU).numpy()
        each = -np.log(probabilities.softmax(logits, 1.0)[np.arange(len(logits)), validation.labels])
        assert epoch.val_loss == pytest.approx(each.mean(), rel=1e-5)
        plain.append(each.mean())
        balanced.append(np.mean([each[validation.labels == c].mean() for c in range(3)]))

    recipe = replace(RECIPE, epochs=8, patience=8)
    state = learn(above, data, validation, recipe=recipe, balance=way, on_epoch=watch)
    watched = plain if way == "none" else balanced
    assert state.lowest_epoch == 1 + int(np.argmin(watched))
    assert state.lowest_loss == pytest.approx(min(watched), rel=1e-5)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_under_equal_shares_the_mean_over_photos_is_the_mean_over_classes(labels: list[int]) -> None:
    values = np.arange(len(labels), dtype=np.float64) ** 2
    weights = class_balance.photo_weights(np.array(labels), class_balance.represented(np.bincount(labels), "sampling"))
    assert weights.mean() == pytest.approx(1)
    assert (weights * values).mean() == pytest.approx(class_balance.class_mean(values, np.array(labels)))


@pytest.mark.parametrize("way", ["loss", "sampling"])
def test_with_equal_classes_there_is_nothing_to_balance(tmp_path: Path, way: Any) -> None:
    data, one, other = examples(tmp_path, views=2), small(), small()
    recipe = replace(RECIPE, views=2, patience=2)
    assert figures(learn(one, data, recipe=recipe)) == figures(learn(other, data, recipe=recipe, balance=way))
    assert same(bits(one), bits(other))


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_macro_recall_is_scikit_learns_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 300, p=[0.8, 0.15, 0.05])
    logits = rng.normal(size=(300, 3)) + 2 * np.eye(3)[labels]
    found = metrics.measure(logits, labels, CLASSES, 1.0, 0)
    assert found.metrics["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, logits.argmax(1)))
    low, high = found.intervals["balanced_accuracy_ci"]
    assert low < found.metrics["balanced_accuracy"] < high
    right = (logits.argmax(1) == labels).astype(float)
    drawn = [  # the same resampling, photo by photo
        np.mean([rng.choice(right[labels == c], (labels == c).sum()).mean() for c in range(3)]) for _ in range(1500)
    ]
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.015)
    assert high - low > np.ptp(found.intervals["accuracy_ci"])  # few photos of two classes count for two thirds


def test_its_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    labels, truth = np.repeat([0, 1, 2], [120, 15, 10]), np.array([0.95, 0.8, 0.7])
    held = 0
    for _ in range(100):
        low, high = intervals.balanced_interval((rng.random(len(labels)) < truth[labels]).astype(float), labels)
        held += low <= truth.mean() <= high
    assert held >= 87  # 95 are meant; 87 or fewer has a chance of 1 in 1000


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_in_few_photos_is_no_certainty(value: float) -> None:
    low, high = intervals.balanced_interval(np.full(12, value), np.repeat([0, 1], [10, 2]))
    assert (high if value else low) == value
    assert 0.1 < high - low < 0.6


@pytest.mark.parametrize(
    ("counts", "expected"), [((14, 15, 15), False), ((10, 14), False), ((10, 15), True), ((0, 5), False)]
)
def test_what_counts_as_unequal(counts: tuple[int, ...], expected: bool) -> None:
    assert class_balance.unequal(counts) is expected


# ---- the whole way, with pictures ------------------------------------------------------------------------------------


@functools.cache
def pictures(base: Path) -> tuple[Path, Path]:
    """Textures that look alike: 60, 12 and 12 to learn from, and 24 of each to be asked about."""
    sets = {"train": dict(zip(CLASSES, (MANY, FEW, FEW), strict=True)), "asked": dict.fromkeys(CLASSES, 24)}
    for part, (name, counts) in enumerate(sets.items()):
        for kind, (label, count) in enumerate(counts.items()):
            (base / name / label).mkdir(parents=True)
            for i in range(count):
                data = encoded(textured(kind, 1000 * part + 100 * kind + i), "PNG")
                (base / name / label / f"{i}.png").write_bytes(data)
    return base / "train", base / "asked"


@pytest.fixture(scope="module")
def trained(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    base = tmp_path_factory.mktemp("unequal")
    data, asked = pictures(base)

    @functools.cache
    def run(way: str) -> Path:
        out = base / way
        options = (
            "--strategy",
            "frozen",
            "--test",
            asked,
            "--balance",
            way,
            "--protocol",
            "tutorial",
            "--epochs",
            "15",
            *SMALL,
        )
        (base / f"{way}.txt").write_text(must("fit", data, "--out", out, *options).out, encoding="utf-8")
        return out

    return run


def test_the_robust_loss_is_told_wherever_the_run_tells_how_it_was_trained(pretrained: Path, tmp_path: Path) -> None:
    data, run = pictures(tmp_path)[0], tmp_path / "run"
    must("fit", data, "--out", run, "--strategy", "frozen", "--loss", "robust", "--epochs", "2", *SMALL)
    told = document(run)
    assert (told["loss"], told["backbones"], told["validation_stops"]) == ("robust", ["mobilenet_v2"], False)
    assert "robust = 0.7" in (run / "config.toml").read_text(encoding="utf-8")
    assert "robust loss" in (run / "frozen" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "unknown loss 'robost'; did you mean 'robust'?" in call("fit", data, "--loss", "robost").error


def recalls(run: Path) -> list[float]:
    (row,) = document(run)["strategies"]
    return [c["recall"] for c in row["per_class"]]


@pytest.mark.parametrize("way", ["loss", "sampling"])
def test_balance_raises_the_small_classes_recall(trained: Callable[[str], Path], way: str) -> None:
    plain, balanced = recalls(trained("none")), recalls(trained(way))
    assert np.mean(balanced[1:]) > np.mean(plain[1:]) + 0.1
    assert np.mean(balanced) > np.mean(plain) + 0.03


def test_macro_figures_come_first_everywhere(trained: Callable[[str], Path]) -> None:
    run = trained("none")
    found = document(run)
    (row,) = found["strategies"]
    assert found["dataset"]["unequal"] is True
    predictions = table(run / "frozen" / "predictions.csv")
    true, said = [p["true"] for p in predictions], [p["predicted"] for p in predictions]
    assert row["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, said))
    assert row["balanced_accuracy_ci"][0] <= row["balanced_accuracy"] <= row["balanced_accuracy_ci"][1]
    macro = f"{100 * row['balanced_accuracy']:.1f} %"
    assert f" has macro recall {macro} (95 % CI " in found["answer"]
    printed = run.with_suffix(".txt").read_text(encoding="utf-8")
    assert re.search(r"strategy +macro recall +95 % CI +macro F1 +accuracy ", printed)
    assert re.search(rf"frozen +{re.escape(macro)} ", printed)
    report = (run / "report.html").read_text(encoding="utf-8")
    places = [
        report.index(f'<th scope="col" class="wrap">{name}</th>') for name in ("Macro recall", "Macro F1", "Accuracy")
    ]
    assert places == sorted(places)
    card = (run / "frozen" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "\n| Macro recall | 95 % CI | Macro F1 | Accuracy |" in card
    assert f"| {macro} | " in card


def test_equal_classes_keep_accuracy_first(run: Any) -> None:
    found = document(run.out)
    assert found["dataset"]["unequal"] is False
    assert "macro" not in found["answer"]
    assert re.search(r"strategy +accuracy +95 % CI +macro F1 +calibration error ", run.said.out)
    report = (run.out / "report.html").read_text(encoding="utf-8")
    assert ">Macro recall</th>" not in report
    card = (run.out / "frozen" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "\n| Accuracy | 95 % CI | " in card
    assert "Macro recall" not in card
    frozen = next(row for row in found["strategies"] if row["name"] == "frozen")
    error = f"{frozen['calibration_error']:.3f}"  # one number, one name, wherever people read
    assert re.search(rf"frozen .* {error} ", run.said.out)
    assert f"<td>{error}</td>" in report
    assert f"| {error} | {wording.decimals(frozen['calibration_error_ci'])} |" in card
    assert "| Calibration error |" in card
    for row in found["strategies"]:
        assert set(row) >= {"balanced_accuracy", "balanced_accuracy_ci", "validation_balanced_accuracy"}


def test_the_decision_goes_by_macro_recall_in_both_sentences() -> None:
    """Fine-tuned is right about every moss and a third of the reeds, frozen the other way round; moss has more photos,
    so accuracy and macro recall point in different directions.
    """
    from frostline.documents.study import Study
    from frostline.stats.predictions import Prediction
    from frostline.studies.document import answer, comparisons, decide

    row: dict[str, Any] = {"accuracy": 0.9, "accuracy_ci": [0.8, 0.95], "balanced_accuracy": 0.7}
    row |= {"balanced_accuracy_ci": [0.6, 0.8], "parameters": {"trainable": 1}, "backbone": "net", "layers": 9}
    rows: Any = [
        {**row, "name": name, "freeze_line": line, "validation_accuracy": plain, "validation_balanced_accuracy": macro}
        for name, line, plain, macro in (("frozen", 9, 0.95, 0.6), ("fine-tuned", 6, 0.9, 0.8))
    ]
    true = ["moss"] * 300 + ["reed"] * 60

    def said(wrong: set[int]) -> list[Prediction]:
        return [Prediction(str(i), label, "?" if i in wrong else label, 0.9, {}) for i, label in enumerate(true)]

    predictions = {"frozen": said(set(range(300, 340))), "fine-tuned": said(set(range(45)))}
    for unequal, metric, model, points, helps in (
        (True, "macro recall", "fine-tuned", 25.83, "yes"),
        (False, "accuracy", "frozen", -1.39, "unknown"),
    ):
        dataset = {"test": 360, "test_root": None, "sample": False, "unequal": unequal}
        rest: Any = {"reported_on": "test", "dataset": dataset, "comparisons": comparisons(predictions)}
        found = decide(rows, rest, predictions)
        assert found is not None and (about := found["unfreezing"]) is not None
        assert (found["ship"]["model"], found["ship"]["metric"]) == (model, metric)
        assert (about["metric"], about["helps"]) == (metric, helps)
        assert 100 * about["difference"] == pytest.approx(points, abs=0.01)
        document: Study = {**rest, "decision": found}
        first, second = answer(rows, document)
        assert first == found["ship"]["words"]
        assert first.startswith(f"Use {model}: it had the highest validation {metric} (")
        assert second.startswith(about["words"])
    rows[0]["per_class"] = [{"class": "moss", "support": 40}, {"class": "reed", "support": 0}]
    assert answer(rows, document)[1].endswith("No photos of reed were reported on: nothing was measured of that class.")


# ---- bundles and other shares ----------------------------------------------------------------------------------------


def about(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "frozen" / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    return value


def chances(run: Path, asked: Path, *options: object) -> np.ndarray:
    """(N, C) as `predict` tells them."""
    said = must("predict", run / "frozen" / "bundle", asked, "--json", *options).out
    return np.array([list(json.loads(line)["probabilities"].values()) for line in said.splitlines()])


def test_a_bundle_keeps_the_shares_it_was_trained_on_and_those_it_stands_for(trained: Callable[[str], Path]) -> None:
    met = np.array([48, 9.6, 9.6]) / 67.2
    for way, stands_for in (("none", met), ("sampling", np.full(3, 1 / 3)), ("loss", np.full(3, 1 / 3))):
        found = about(trained(way))
        assert found["priors"] == pytest.approx(met, abs=0.02)
        assert found["stands_for"] == pytest.approx(stands_for, abs=0.02)


def test_predict_takes_other_shares(trained: Callable[[str], Path]) -> None:
    run = trained("sampling")
    asked = run.parent / "asked"
    plain = chances(run, asked)
    assert np.allclose(chances(run, asked, "--prior", "equal"), plain, atol=1e-12)  # what it stands for
    for prior, ratio in (
        ("train", np.array(about(run)["priors"]) * 3),
        ("bark=8,moss=1,reed=1", np.array([2.4, 0.3, 0.3])),
    ):
        bayes = plain * ratio
        assert np.allclose(chances(run, asked, "--prior", prior), bayes / bayes.sum(1, keepdims=True), atol=1e-12)
    found = chances(run, asked, "--prior", "estimate")
    bayes = plain * found.mean(0) * 3
    assert np.allclose(found, bayes / bayes.sum(1, keepdims=True), atol=1e-6)
    api = list(frostline.predict(run / "frozen" / "bundle", [asked], prior={"bark": 0, "moss": 1, "reed": 1}))
    assert {p.predicted for p in api} <= {"moss", "reed"}


def test_evaluate_takes_other_shares(trained: Callable[[str], Path], tmp_path: Path) -> None:
    run = trained("none")
    bundle, asked = run / "frozen" / "bundle", run.parent / "asked"
    found = {
        prior: json.loads(must("evaluate", bundle, asked, "--json", *(("--prior", prior) if prior else ())).out)
        for prior in ("", "train", "equal", "estimate")
    }
    assert "prior" not in found[""]
    assert found["train"]["confusion"] == found[""]["confusion"]  # these it was trained on
    assert found["train"]["log_loss"] == pytest.approx(found[""]["log_loss"], abs=1e-9)
    assert found["equal"]["prior"] == pytest.approx(dict.fromkeys(CLASSES, 1 / 3))
    assert found["equal"]["balanced_accuracy"] > found[""]["balanced_accuracy"]  # what it was asked about is equal
    assert found["equal"]["log_loss"] < found[""]["log_loss"]
    assert found["estimate"]["prior"]["bark"] < found["train"]["prior"]["bark"]
    said = must("evaluate", bundle, asked, "--prior", "equal", "--out", tmp_path / "p.csv").out
    assert "Class shares assumed: bark 33.3 %, moss 33.3 %, reed 33.3 %" in said
    assert "accuracy " in said.splitlines()[0] and " % (95 % CI " in said.splitlines()[0]  # these classes are equal
    for line in table(tmp_path / "p.csv"):
        assert float(line["confidence"]) == max(float(line[f"p_{c}"]) for c in CLASSES)
    uneven_set = tmp_path / "uneven"
    shutil.copytree(asked, uneven_set)
    for i in range(8):
        (uneven_set / "moss" / f"{i}.png").unlink()
    assert must("evaluate", bundle, uneven_set).out.startswith("macro recall ")


def test_a_prior_that_can_not_be_used_is_told_and_leaves_no_file(
    trained: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained("none")
    bundle, asked = run / "frozen" / "bundle", run.parent / "asked"
    out = tmp_path / "p.csv"
    for command in (("predict", bundle, asked, "--out", out), ("evaluate", bundle, asked)):
        assert "did you mean 'moss'?" in call(*command, "--prior", "bark=1,mos=1,reed=1").error
        assert "expected train, equal, estimate" in call(*command, "--prior", "trian").error
    assert not out.exists()


def test_a_bundle_written_before_loads_and_has_no_shares(trained: Callable[[str], Path], tmp_path: Path) -> None:
    run = trained("none")
    asked, old = run.parent / "asked", tmp_path / "old" / "frozen" / "bundle"
    shutil.copytree(run / "frozen" / "bundle", old)
    known = {k: v for k, v in about(run).items() if k not in ("priors", "stands_for")}
    (old / "bundle.json").write_text(json.dumps({**known, "schema": 1}), encoding="utf-8")
    assert np.array_equal(chances(tmp_path / "old", asked), chances(run, asked))
    for prior in ("train", "equal", "estimate", "1,1,1"):
        assert "train it again to use a prior" in call("predict", old, asked, "--prior", prior).error
    for damage in ({"priors": [0.5, 0.5]}, {"stands_for": [2, 0, 0]}, {"priors": "equal"}):
        (old / "bundle.json").write_text(json.dumps({**known, **damage}), encoding="utf-8")
        with pytest.raises(BundleError, match="expected a share for each class, 1 in all"):
            frostline.load(old)


def test_balance_is_checked(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["rose", "tulip"], 6)
    assert "did you mean 'sampling'?" in call("fit", data, "--out", tmp_path / "run", "--balance", "sampled").error
