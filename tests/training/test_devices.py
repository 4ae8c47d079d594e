"""Training on a device: the same loop, the same order, and rows that are kept there or read ahead.

Where there is an accelerator the same tests run on it: `pytest -m device`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frostline.networks import devices
from frostline.recipes import Recipe
from frostline.training.checkpoint import Epoch
from frostline.training.examples import Examples, Feed
from frostline.training.loop import measure, predict_logits
from support.devices import each_device
from support.training import CPU, RECIPE, Interrupted, bits, examples, figures, learn, same, small

VIEWS = replace(RECIPE, views=3, averaging=0.9, weight_decay=0.1)
BYTES = 60 * 3 * 8 * 2
"""Rows of 60 photos: 3 views of 8 values in float16."""


def order(data: Examples, device: torch.device, room: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(3)
    photos = np.split(rng.permutation(len(data)), [7, 15, 40])
    views = [rng.integers(0, 5, len(part)) for part in photos]  # more than there are: they begin anew
    for (live,), labels in Feed(data, device, views=3, room=room).batches(photos, views):
        yield live.cpu(), labels.cpu()


@each_device
@pytest.mark.parametrize("room", [None, BYTES, BYTES - 1], ids=["its own", "fits", "does not fit"])
def test_the_batches_are_the_same_wherever_the_rows_are(tmp_path: Path, device: torch.device, room: int | None) -> None:
    data = examples(tmp_path, views=3)
    wanted = list(order(data, CPU, None))
    assert [len(labels) for _, labels in wanted] == [7, 8, 25, 20]
    for (rows, labels), (there, labels_there) in zip(wanted, order(data, device, room), strict=True):
        assert torch.equal(rows, there)
        assert torch.equal(labels, labels_there)


def test_rows_that_fit_are_read_once(tmp_path: Path) -> None:
    data, feeds = examples(tmp_path, views=3), []
    feeds = [Feed(data, CPU, views=3, room=room) for room in (BYTES, BYTES - 1)]
    asked = [np.arange(60)], [np.zeros(60, np.int64)]
    before = [list(feed.batches(*asked)) for feed in feeds]
    data.store.read = lambda _keys: pytest.fail("read again")  # type: ignore[method-assign]
    (again,) = feeds[0].batches(*asked)
    assert torch.equal(again[0][0], before[0][0][0][0])
    with pytest.raises(BaseException, match="read again"):
        list(feeds[1].batches(*asked))


@pytest.mark.parametrize("room", [10**6, 1])
def test_training_gives_the_same_bits_wherever_the_rows_are(tmp_path: Path, room: int) -> None:
    data, validation = examples(tmp_path / "a", views=3), examples(tmp_path / "b", 30, seed=9)
    plain, there = small(), small()
    assert figures(learn(plain, data, validation, recipe=VIEWS)) == figures(
        learn(there, data, validation, recipe=VIEWS, room=room)
    )
    assert same(bits(plain), bits(there))


@each_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_learns_in_every_number_format(tmp_path: Path, device: torch.device, precision: Any) -> None:
    data, above = examples(tmp_path, views=2), small()
    recipe = replace(RECIPE, views=2, epochs=8, averaging=0.5)
    state = learn(above, data, recipe=recipe, precision=precision, device=device)
    assert state.history[-1].val_accuracy == 1.0
    assert state.history[-1].train_loss < state.history[0].train_loss / 2
    assert all(p.dtype == torch.float32 and p.device.type == device.type for p in above.parameters())
    there, here = measure(above, data, device, "float32"), measure(above, data, CPU, "float32")
    assert there == pytest.approx(here, rel=1e-3)


def test_float16_scales_the_losses_and_the_others_do_not(tmp_path: Path) -> None:
    kept = {}
    for precision in ("float32", "float16"):
        file = tmp_path / f"{precision}.pt"
        learn(small(), examples(tmp_path), precision=precision, checkpoint=file)
        kept[precision] = torch.load(file, weights_only=True)["scaler"]
    assert kept["float32"] == {}
    assert kept["float16"]["scale"] >= 1


@each_device
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_run_goes_on_with_another_device(tmp_path: Path, device: torch.device, precision: Any) -> None:
    """Begun on a device, ended on the processor, and the other way round; on one alone it gives the same bits."""
    data, recipe = examples(tmp_path / "rows", views=2), replace(RECIPE, views=2, patience=3, averaging=0.9)

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise Interrupted

    for number, (first, second) in enumerate(((device, CPU), (CPU, device))):
        file = tmp_path / f"{number}.pt"
        with pytest.raises(Interrupted):
            learn(small(), data, recipe=recipe, precision=precision, device=first, checkpoint=file, on_epoch=stop)
        assert all(t.device == CPU for t in tensors_of(torch.load(file, weights_only=True)))
        again, whole = small(seed=7), small()
        state = learn(again, data, recipe=recipe, precision=precision, device=second, checkpoint=file)
        expected = learn(whole, data, recipe=recipe, precision=precision)
        assert len(state.history) == len(expected.history)
        if first == second:
            assert figures(state) == figures(expected)
            assert same(bits(again), bits(whole))


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [t for each in inner for t in tensors_of(each)]


@each_device
def test_the_same_seed_gives_the_same_bits_on_a_device(tmp_path: Path, device: torch.device) -> None:
    if not devices.deterministic(device):
        pytest.skip(f"PyTorch does not promise it on {device.type}")
    data, ends = examples(tmp_path, views=2), []
    for noise in (1, 2):
        above = small()
        torch.manual_seed(noise)  # what ran before must not matter
        learn(above, data, recipe=Recipe(epochs=2, batch_size=8, hidden=16, dropout=0.5, views=2), device=device)
        ends.append(bits(above))
    assert same(*ends)


@each_device
def test_logits_do_not_depend_on_how_many_photos_there_are(tmp_path: Path, device: torch.device) -> None:
    data, above = examples(tmp_path, 40), small()
    whole = predict_logits(above, data, device)
    part = Examples(data.store, data.keys[:17], data.labels[:17])
    assert whole.device == CPU
    assert torch.equal(predict_logits(above, part, device), whole[:17])
