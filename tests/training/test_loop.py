"""The one loop: reproducible to the bit, resumable, and it moves nothing that is frozen."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from frostline.cache.store import Store
from frostline.errors import RunError
from frostline.networks import backbone, freeze_line
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import TorchEngine
from frostline.networks.trainable import Above, make_head
from frostline.recipes import LEAST_TO_TELL, MOST_VIEWS, Recipe, resolve
from frostline.training.examples import Examples
from frostline.training.loop import Epoch, measure, predict_logits
from frostline.training.optimiser import stretched
from support.training import CLASSES, CPU, RECIPE, Interrupted, bits, examples, figures, key, learn, same, small

# ---- what the loop does ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_what_can_be_learnt(tmp_path: Path, precision: Any) -> None:
    data, above = examples(tmp_path), small()
    before = measure(above, data, CPU, precision)
    state = learn(above, data, precision=precision, recipe=replace(RECIPE, epochs=8))
    assert before[1] < 0.7
    assert state.history[-1].val_accuracy == 1.0
    assert state.history[-1].val_loss < before[0] / 3
    assert state.history[-1].train_loss < state.history[0].train_loss
    assert [row.epoch for row in state.history] == [*range(1, 9)]
    assert state.best_epoch == 8  # no patience: the last one is kept
    assert all(p.dtype == torch.float32 for p in above.parameters())
    loss, accuracy = measure(above, data, CPU, precision)
    assert (loss, accuracy) == (state.history[-1].val_loss, state.history[-1].val_accuracy)


def mislabelled(data: Examples, share: float, seed: int = 0) -> Examples:
    """The same photos, some of them under the name of the next class."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(data)) < share
    return replace(data, labels=np.where(wrong, (data.labels + 1) % CLASSES, data.labels))


def test_the_robust_loss_learns_wrong_labels_less(tmp_path: Path) -> None:
    right: dict[float, list[float]] = {0.0: [], 0.7: []}
    for seed in range(3):
        data, fresh = (
            examples(tmp_path / f"a{seed}", 90, seed=seed),
            examples(tmp_path / f"b{seed}", 300, seed=10 + seed),
        )
        given = mislabelled(data, 0.3, seed)
        for robust, accuracies in right.items():
            recipe = replace(RECIPE, robust=robust, epochs=20, hidden=64, dropout=0.0, learning_rate=3e-3)
            above = small(seed, recipe)
            learn(above, given, recipe=recipe)
            accuracies.append(measure(above, fresh, CPU, "float32")[1])
    gains = np.subtract(right[0.7], right[0.0])
    assert gains.min() > 0
    assert gains.mean() > 0.04


def test_the_robust_loss_near_exponent_0_is_cross_entropy(tmp_path: Path) -> None:
    data, ends = examples(tmp_path), []
    for robust in (0.0, 1e-4):
        above = small()
        ends.append(learn(above, data, recipe=replace(RECIPE, robust=robust)).history[-1])
    assert ends[1].val_loss == pytest.approx(ends[0].val_loss, rel=0.01)
    assert ends[1].train_loss == pytest.approx(ends[0].train_loss, rel=0.01)


def test_the_robust_loss_judges_validation_photos_too(tmp_path: Path) -> None:
    """It is bounded by 1 / q, and wrong labels go beyond that in cross-entropy."""
    data, wrong = examples(tmp_path / "a"), mislabelled(examples(tmp_path / "b", 90, seed=1), 0.5)
    state = learn(small(), data, wrong, recipe=replace(RECIPE, robust=0.7, patience=9))
    assert state.history[state.lowest_epoch - 1].val_loss > 1 / 0.7
    assert state.lowest is not None
    assert state.lowest.max() <= 1 / 0.7
    assert state.lowest.mean() == pytest.approx(state.lowest_loss)


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(tmp_path: Path) -> None:
    data = examples(tmp_path, views=3)
    recipe = replace(RECIPE, views=3)
    ends = []
    for seed, noise in ((5, 1), (5, 2), (6, 1)):
        above = small()
        torch.manual_seed(noise)  # what ran before must not matter
        ends.append((figures(learn(above, data, seed=seed, recipe=recipe)), bits(above)))
    assert ends[0][0] == ends[1][0]
    assert same(ends[0][1], ends[1][1])
    assert not same(ends[0][1], ends[2][1])


@pytest.mark.parametrize("after", [1, 3])
@pytest.mark.parametrize("patience", [0, 3])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, after: int, patience: int) -> None:
    data, validation = examples(tmp_path / "a", views=2), examples(tmp_path / "b", 30, shuffled=True, seed=9)
    recipe = replace(RECIPE, views=2, epochs=6, patience=patience, schedule="cosine", weight_decay=0.1)
    whole = small()
    uninterrupted = learn(whole, data, validation, recipe=recipe)
    file = tmp_path / "checkpoint.pt"

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == after:
            raise Interrupted

    seen: list[int] = []
    with pytest.raises(Interrupted):
        learn(small(), data, validation, recipe=recipe, checkpoint=file, on_epoch=stop)
    torch.rand(3)
    resumed = small(seed=77)  # other starting weights: all of them must come from the checkpoint
    state = learn(
        resumed, data, validation, recipe=recipe, checkpoint=file, on_epoch=lambda epoch: seen.append(epoch.epoch)
    )
    assert seen == [*range(after + 1, len(uninterrupted.history) + 1)]
    assert figures(state) == figures(uninterrupted)
    assert state.best_epoch == uninterrupted.best_epoch
    assert same(bits(resumed), bits(whole))
    assert file.exists()
    again = small(seed=78)  # a finished one does not train on
    assert figures(learn(again, data, validation, recipe=recipe, checkpoint=file)) == figures(state)
    assert same(bits(again), bits(whole))


def test_another_stages_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    data, file = examples(tmp_path), tmp_path / "checkpoint.pt"
    learn(small(), data, checkpoint=file, stage="head", recipe=replace(RECIPE, epochs=1))
    fresh, other = small(), small()
    assert figures(learn(fresh, data, checkpoint=file)) == figures(learn(other, data))
    assert same(bits(fresh), bits(other))


def each_loss(above: Above, photos: Examples) -> np.ndarray:
    """Cross-entropy of each photo (N,)."""
    logits = predict_logits(above, photos, CPU)
    return nn.functional.cross_entropy(logits, torch.from_numpy(photos.labels), reduction="none").numpy()


def last_within_an_error(losses: list[np.ndarray]) -> int:
    """Number of the last epoch whose mean loss is at most a standard error (of the paired difference) above the lowest
    up to there."""
    kept = 0
    for number, now in enumerate(losses, 1):
        higher = now.astype(np.float64) - min(losses[:number], key=np.mean)
        kept = number if higher.mean() <= higher.std(ddof=1) / len(higher) ** 0.5 else kept
    return kept


def test_patience_stops_and_keeps_the_last_epoch_that_is_not_clearly_worse(tmp_path: Path) -> None:
    """Validation labels that have nothing to do with the rows: their loss soon rises while training goes on."""
    data, validation = examples(tmp_path / "a"), examples(tmp_path / "b", LEAST_TO_TELL, shuffled=True, seed=9)
    kept: dict[int, dict[str, Tensor]] = {}
    losses: list[np.ndarray] = []
    above = small()

    def watch(epoch: Epoch) -> None:
        kept[epoch.epoch] = bits(above)
        losses.append(each_loss(above, validation))

    state = learn(above, data, validation, recipe=replace(RECIPE, epochs=30, patience=3), on_epoch=watch)
    assert state.best_epoch == last_within_an_error(losses)
    assert state.lowest_epoch == 1 + int(np.argmin([loss.mean() for loss in losses]))
    assert len(losses) == max(state.best_epoch, state.lowest_epoch) + 3 < 30
    assert same(bits(above), kept[state.best_epoch])
    assert not same(bits(above), kept[len(losses)])
    row = state.history[state.best_epoch - 1]
    assert measure(above, validation, CPU, "float32") == (row.val_loss, row.val_accuracy)
    assert state.kept_accuracy == row.val_accuracy


def test_too_few_validation_photos_to_tell_leave_training_its_whole_course(tmp_path: Path) -> None:
    """Wrongly labelled photos: their loss rises from epoch to epoch, and would keep the first of them if they were
    more."""
    data, count = examples(tmp_path), LEAST_TO_TELL - 1
    wrong = Examples(data.store, data.keys[:count], (data.labels[:count] + 1) % CLASSES)
    state = learn(small(), data, wrong, recipe=replace(RECIPE, epochs=12, patience=2))
    assert state.history[-1].val_loss > state.history[0].val_loss
    assert state.best_epoch == len(state.history) == 12


@pytest.mark.parametrize("count", [1, 2, 8, 9, 17])
def test_an_odd_last_batch_of_one_is_no_trouble(tmp_path: Path, count: int) -> None:
    """Batch norm can't learn from a single row; the last one joins the batch before."""
    above = small()
    above._learn_statistics = count > 1
    state = learn(above, examples(tmp_path, count), examples(tmp_path, 33))
    assert len(state.history) == 4
    assert all(np.isfinite(row.train_loss) for row in state.history)
    right = state.history[-1].train_accuracy * count
    assert right == pytest.approx(round(right))  # each photo was seen once


def test_a_photos_logits_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    data, above = examples(tmp_path, 40), small()
    whole = predict_logits(above, data, CPU)
    assert whole.shape == (40, CLASSES)
    for count in (1, 17, 33):
        part = Examples(data.store, data.keys[:count], data.labels[:count])
        assert torch.equal(predict_logits(above, part, CPU), whole[:count])


def test_damaged_checkpoints_are_told_in_one_line(tmp_path: Path) -> None:
    data, file = examples(tmp_path), tmp_path / "checkpoint.pt"
    learn(small(), data, checkpoint=file, recipe=replace(RECIPE, epochs=1))
    good = file.read_bytes()
    torch.save({"stage": "own"}, tmp_path / "other.pt")
    for damaged in (b"", good[: len(good) // 2], b"no checkpoint", (tmp_path / "other.pt").read_bytes()):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=r"can't be read .*: delete it to train again") as error:
            learn(small(), data, checkpoint=file)
        assert "\n" not in str(error.value)
    file.unlink()
    learn(small(), data, checkpoint=file)


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    file = tmp_path / "checkpoint.pt"
    torch.save({"stage": Evil()}, file)
    with pytest.raises(RunError):
        learn(small(), examples(tmp_path), checkpoint=file)
    assert not (tmp_path / "executed").exists()


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    above = small()
    with torch.no_grad():
        above.head[0].weight[0, 0] = torch.inf
    with pytest.raises(RunError, match=r"Training test: the loss is (nan|inf) in epoch 1: lower the learning rate"):
        learn(above, examples(tmp_path))


def test_the_reduced_rate_is_for_the_layers_above_the_line(tmp_path: Path) -> None:
    """With a rate of almost nothing above the line, only the head moves."""
    recipe = replace(RECIPE, learning_rate_above_line=1e-12, epochs=1)
    for reduced, moved in ((True, False), (False, True)):
        above = small()
        start = bits(above)
        learn(above, examples(tmp_path), recipe=recipe, reduced=reduced)
        steps = {k: float((above.state_dict()[k] - v).abs().max()) for k, v in start.items() if "weight" in k}
        assert steps["head.0.weight"] > 1e-3
        assert (steps["suffix.0.weight"] > 1e-3) is moved


def test_heads() -> None:
    head = make_head(1280, 5, Recipe(dropout=0.3), 0)
    assert [type(m) for m in head] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert sum(p.numel() for p in head.parameters()) == 164_613
    assert sum(p.numel() for p in make_head(1280, 5, Recipe(hidden=0), 0).parameters()) == 6405
    assert same(bits(make_head(8, 3, RECIPE, 1)), bits(make_head(8, 3, RECIPE, 1)))
    assert not same(bits(make_head(8, 3, RECIPE, 1)), bits(make_head(8, 3, RECIPE, 2)))


# ---- what is frozen stays, bit for bit -------------------------------------------------------------------------------


@cache
def network() -> Backbone:
    built = backbone.build("mobilenet_v2", "random", seed=1, image_size=64)
    for module in built.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.3)
    return built


def activations(folder: Path, built: Backbone, cut: freeze_line.Cut, count: int = 20) -> Examples:
    photos = np.random.default_rng(2).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    live = [photos] if cut.line == 0 else TorchEngine(cut.prefix, CPU).run([photos])
    dtypes = [np.dtype(np.uint8 if a.dtype == np.uint8 else np.float16) for a in live]
    store = Store(folder, cut.shapes, dtypes)
    store.append([key(i) for i in range(count)], live)
    return Examples(store, [[key(i)] for i in range(count)], np.arange(count, dtype=np.int64) % CLASSES)


@pytest.mark.parametrize("line", ["top", "top-6", "top-20"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nothing_below_the_line_and_no_statistic_above_it_moves(tmp_path: Path, line: str, precision: Any) -> None:
    built = copy.deepcopy(network())
    cut = freeze_line.cut(built.traced, resolve(line, built.layer_count))
    data = activations(tmp_path, built, cut)
    whole, below, suffix = bits(built.network), bits(cut.prefix), bits(cut.suffix)
    above = Above(cut.suffix, make_head(built.features, CLASSES, RECIPE, 0), learn_statistics=False)
    learn(above, data, precision=precision, recipe=replace(RECIPE, epochs=2, patience=1), reduced=True)
    assert same(bits(cut.prefix), below)
    now = bits(cut.suffix)
    statistics = {k for k in now if "running_" in k or "num_batches" in k}
    assert len(statistics) == {"top": 0, "top-6": 6, "top-20": 24}[line]
    assert all(torch.equal(now[k], suffix[k]) for k in statistics)
    learnt = {k for k in now if k not in statistics}
    assert all(not torch.equal(now[k], suffix[k]) for k in learnt)  # what is above the line does learn
    changed = {k for k, v in bits(built.network).items() if not torch.equal(v, whole[k])}
    assert changed == learnt


def test_a_network_from_random_weights_learns_its_statistics(tmp_path: Path) -> None:
    built = copy.deepcopy(network())
    cut = freeze_line.cut(built.traced, 0)
    data = activations(tmp_path, built, cut)
    start = bits(cut.suffix)
    above = Above(cut.suffix, make_head(built.features, CLASSES, RECIPE, 0), learn_statistics=True)
    learn(above, data, recipe=replace(RECIPE, epochs=1))
    moved = {k for k, v in bits(cut.suffix).items() if "running_" in k and not torch.equal(v, start[k])}
    assert moved == {k for k in start if "running_" in k}
    after = bits(above)
    predict_logits(above, data, CPU)  # prediction moves nothing
    assert same(bits(above), after)


def test_few_photos_get_more_epochs_and_many_get_the_recipe_s() -> None:
    recipe = Recipe(epochs=10, patience=3, batch_size=32, least_steps=200)
    assert stretched(recipe, 2000) == recipe
    few = stretched(recipe, 65)  # three steps an epoch
    assert (few.epochs, few.patience) == (70, 21)
    assert few.epochs * 3 >= recipe.least_steps
    assert stretched(replace(recipe, patience=0), 65).patience == 0
    assert stretched(replace(recipe, least_steps=0), 65).epochs == recipe.epochs


def test_few_photos_get_more_views_and_many_get_the_recipe_s() -> None:
    recipe = Recipe(views=2, least_pictures=2000)
    assert [stretched(recipe, n).views for n in (5000, 1000, 999, 400, 125, 10)] == [2, 2, 3, 5, MOST_VIEWS, MOST_VIEWS]
    assert stretched(replace(recipe, least_pictures=0), 10).views == 2


def test_the_kept_weights_may_be_a_running_mean(tmp_path: Path) -> None:
    data = examples(tmp_path)
    plain, mean = small(), small()
    learn(plain, data)
    state = learn(mean, data, recipe=replace(RECIPE, averaging=0.9))
    assert not same(bits(plain), bits(mean))
    assert state.history[-1].val_loss == measure(mean, data, CPU, "float32")[0]  # what is validated is what is kept


def test_a_running_mean_is_picked_up_where_it_stopped(tmp_path: Path) -> None:
    data, recipe = examples(tmp_path / "rows"), replace(RECIPE, averaging=0.9)
    whole, halves = small(), small()
    learn(whole, data, recipe=recipe)

    class StopError(Exception): ...

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        learn(halves, data, recipe=recipe, checkpoint=tmp_path / "kept.pt", on_epoch=stop)
    again = small(seed=7)
    learn(again, data, recipe=recipe, checkpoint=tmp_path / "kept.pt")
    assert same(bits(whole), bits(again))


def test_what_training_makes_worse_stays_as_it_began(tmp_path: Path) -> None:
    data, above = examples(tmp_path), small()
    learn(above, data, recipe=replace(RECIPE, epochs=20))
    before, accuracy = bits(above), measure(above, data, CPU, "float32")[1]
    state = learn(above, data, recipe=replace(RECIPE, epochs=6, patience=2, learning_rate=0.5), keep_start=True)
    assert state.best_epoch == 0
    assert state.kept_accuracy == accuracy
    assert same(bits(above), before)
