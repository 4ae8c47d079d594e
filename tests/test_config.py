"""The configuration: written and read without loss, every problem told at once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from frostline.config import SAMPLE, Config, configure, configured, settings
from frostline.documents import trained_alike
from frostline.errors import ConfigError
from frostline.networks.backbone import info
from frostline.recipes import OWN_SIDES, STRATEGIES, Recipe, Strategy, recipes, strategy

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
RATE = st.floats(1e-7, 9.0)
RECIPE = st.builds(
    Recipe,
    epochs=st.integers(1, 500),
    batch_size=st.integers(1, 512),
    learning_rate=RATE,
    learning_rate_above_line=RATE,
    weight_decay=st.floats(0, 1),
    schedule=st.sampled_from(["constant", "cosine"]),
    patience=st.integers(0, 20),
    label_smoothing=st.floats(0, 0.99),
    hidden=st.integers(0, 1024),
    dropout=st.floats(0, 0.99),
    views=st.integers(1, 8),
)
ROW = st.builds(
    Strategy,
    name=st.sampled_from(STRATEGIES),
    backbone=TEXT,
    weights=st.sampled_from(["pretrained", "random"]),
    line=st.sampled_from(["0", "top", "top-6", "133", "30%", "features.17"]),
    line_counts=st.sampled_from(["parameters", "all"]),
    line_asked=st.booleans(),
    head_first=st.booleans(),
    recipe=RECIPE,
    head_recipe=RECIPE,
).map(lambda row: replace(row, head_recipe=replace(row.head_recipe, hidden=row.recipe.hidden)))  # one head, two stages
CONFIG = st.builds(
    Config,
    data=TEXT,
    strategies=st.lists(ROW, min_size=1, max_size=3, unique_by=lambda row: row.name).map(tuple),
    test=TEXT,
    protocol=st.sampled_from(["tutorial", "rigorous"]),
    preset=st.sampled_from(["fast", "balanced", "best"]),
    seed=st.integers(0, 2**40),
    image_size=st.sampled_from([0, 32, 224, 1024]),
    resize=st.sampled_from(["squash", "crop"]),
    engine=st.sampled_from(["auto", "onnx", "torch"]),
    device=st.sampled_from(["auto", "cpu", "cuda", "mps", "xpu"]),
    precision=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    stored_as=st.sampled_from(["float16", "float32"]),
    weights=TEXT,
    balance=st.sampled_from(["none", "loss", "sampling"]),
)


def config(**changes: Any) -> Config:
    return Config(**{"data": "photos", "strategies": (strategy("frozen"),), **changes})


@settings_of_hypothesis(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONFIG)
def test_what_was_written_is_read(tmp_path: Path, written: Config) -> None:
    file = tmp_path / "config.toml"
    written.to_toml(file)
    assert Config.from_toml(file) == written


def rewritten(tmp_path: Path, old: str, new: str) -> Path:
    file = tmp_path / "config.toml"
    config().to_toml(file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed = 0", "sed = 0", "unknown setting 'sed'; did you mean 'seed'?"),
        ("dropout =", "drop_out =", "unknown setting 'drop_out'; did you mean 'dropout'?"),
        ("head_first =", "headfirst =", "unknown setting 'headfirst'; did you mean 'head_first'?"),
        ('data = "photos"', "", "data missing"),
        ("seed = 0", "seed = ", "is not valid TOML"),
        ("seed = 0", 'seed = "zero"', "seed"),
        ("epochs = 20", 'epochs = "ten"', "epochs"),
        ("epochs = 20", "epochs = 2.5", "epochs"),
        ("head_first = false", "head_first = 1", "head_first"),
        ('schedule = "cosine"', 'schedule = "cosin"', "schedule"),
        ('weights = "pretrained"', 'weights = "pretraind"', "weights"),
        ("weight_decay = 0.01", "weight_decay = -1.0", "weight decay -1.0: expected 0 or more"),
        ("weight_decay = 0.01", "weight_decay = nan", "weight decay nan: expected 0 or more"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.from_toml(rewritten(tmp_path, old, new))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_strategies_that_are_no_table_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('data = "photos"\nstrategies = 3\n')
    with pytest.raises(ConfigError, match="strategies"):
        Config.from_toml(file)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*nowhere.toml"):
        Config.from_toml(tmp_path / "nowhere.toml")


def test_all_problems_are_told_at_once() -> None:
    bad = dataclasses.replace(
        strategy("frozen"),
        head_first=True,
        recipe=Recipe(epochs=0, dropout=1.0, learning_rate=-1),
        head_recipe=Recipe(batch_size=0),
    )
    with pytest.raises(ConfigError) as error:
        config(strategies=(bad, strategy("frozen")), protocol="rigourous", image_size=7, seed=-1, resize="crob")
    text = str(error.value)
    for part in (
        "unknown protocol 'rigourous'; did you mean 'rigorous'?",
        "unknown resize 'crob'; did you mean 'crop'?",
        "strategy named twice: frozen",
        "image size 7: expected 32 to 1024 pixels",
        "seed -1: expected 0 or more",
        "frozen: epochs 0: expected 1 or more",
        "frozen: dropout 1.0: expected 0 to below 1",
        "frozen: learning rate -1: expected above 0 and below 10",
        "batch size 0: expected 1 or more",
    ):
        assert part in text
    assert "\n" not in text


def test_no_strategy_is_refused() -> None:
    with pytest.raises(ConfigError, match="no strategy given: name at least one of baseline, frozen"):
        config(strategies=())


def test_a_misspelt_strategy_is_never_replaced() -> None:
    with pytest.raises(ConfigError, match=r"unknown strategy 'frozn'; did you mean 'frozen'?"):
        strategy("frozn")


@pytest.mark.parametrize("protocol", ["tutorial", "rigorous"])
@pytest.mark.parametrize("preset", ["fast", "balanced", "best"])
def test_every_row_of_the_tables_is_valid(protocol: Any, preset: Any) -> None:
    rows = tuple(strategy(name, protocol=protocol, preset=preset) for name in STRATEGIES)
    config(strategies=rows, protocol=protocol, preset=preset)
    assert set(recipes(protocol, preset)) == {"random", "head", "fine-tuned"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "mobilenet_v2 30%"),
        ({"preset": "best"}, "mobilenet_v2+tf_efficientnet_lite0 57%"),
        ({"preset": "best", "backbone": "mobilenet_v2"}, "mobilenet_v2 65%"),
        ({"preset": "best", "weights": "mine.pth"}, "mobilenet_v2 65%"),
        ({"preset": "best", "protocol": "tutorial"}, "mobilenet_v2 top-6"),
    ],
)
def test_only_best_takes_two_networks_unless_it_is_told(said: Any, expected: str) -> None:
    baseline, frozen, fine_tuned = configure("photos", **said).strategies
    assert f"{fine_tuned.backbone} {fine_tuned.line}" == expected
    assert (baseline.backbone, frozen.backbone) == ("small_cnn", fine_tuned.backbone)


def test_the_lines_of_older_configurations_count_all_layers(tmp_path: Path) -> None:
    """They do not say what they count."""
    configure("photos", line="top-6").to_toml(tmp_path / "config.toml")
    now = Config.from_toml(tmp_path / "config.toml").strategies[-1]
    assert (now.line, now.line_counts, now.line_asked) == ("top-6", "parameters", True)
    text = (tmp_path / "config.toml").read_text(encoding="utf-8")
    kept = [row for row in text.splitlines() if not row.startswith(("line_counts", "line_asked"))]
    (tmp_path / "config.toml").write_text("\n".join(kept), encoding="utf-8")
    then = Config.from_toml(tmp_path / "config.toml").strategies[-1]
    assert (then.line, then.line_counts, then.line_asked) == ("top-6", "all", True)


@pytest.mark.parametrize("line", ["", "-1", "bottom", "tops", "top+6", "130%", "-5%", "1e1%", "٣", "a b", ".a"])
def test_a_line_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a layer number \(100\), top, top-6, a share"):
        configure("photos", line=line)


def test_the_robust_loss_is_that_of_every_stage_of_every_strategy() -> None:
    rows = configure("photos", loss="robust").strategies
    assert {(r.robust, r.label_smoothing) for s in rows for r in (s.recipe, s.head_recipe)} == {(0.7, 0.0)}
    with pytest.raises(ConfigError, match=r"unknown loss 'robost'; did you mean 'robust'?"):
        configure("photos", loss="robost")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["protocol", "preset", "balance", "loss", "backbones"])
def test_runs_are_trained_alike_only_if_all_that_shapes_training_is_the_same(key: str) -> None:
    told = {
        "protocol": "rigorous",
        "preset": "best",
        "balance": "none",
        "loss": "robust",
        "backbones": ["mobilenet_v2"],
    }
    assert trained_alike(told, dict(told))
    assert not trained_alike(told, {**told, key: "other"})
    assert not trained_alike(told, {k: v for k, v in told.items() if k != key})


def test_the_sides_known_beforehand_are_the_networks_own() -> None:
    for name, side in OWN_SIDES.items():
        about = info(name)
        assert (about.image_size, about.interpolation) == (side, "bilinear")


def test_options_reach_the_strategy() -> None:
    row = strategy("fine-tuned", backbone="resnet18", epochs=3, line="top-2")
    assert (row.backbone, row.line, row.recipe.epochs, row.head_recipe.epochs) == ("resnet18", "top-2", 3, 3)
    assert strategy("baseline", backbone="resnet18").backbone == "small_cnn"


@pytest.mark.parametrize(
    "code", ["import frostline", "from frostline.cli.main import main; sys.argv[1:] = ['--help']; main()"]
)
def test_nothing_heavy_is_imported_before_it_is_used(code: str) -> None:
    program = (
        "import sys\ntry:\n    exec(sys.argv[1])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('heavy:', sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program, code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("heavy: []\n")


def test_both_stages_of_a_strategy_train_one_head() -> None:
    row = strategy("fine-tuned")
    with pytest.raises(ConfigError, match=r"fine-tuned: hidden 64 and head_recipe\.hidden 128: expected the same head"):
        config(strategies=(replace(row, recipe=replace(row.recipe, hidden=64)),))


# ---- what Python's users type ----------------------------------------------------------------------------------------

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2000),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["fast", "tutorial", "auto", "onnx", "top-6", "all", "frozen", "robust", ".", "/nowhere"]),
    st.binary(max_size=4),
    st.lists(st.one_of(st.sampled_from(STRATEGIES), st.integers()), max_size=3),
    st.sets(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.builds(Path, st.sampled_from(["photos", "a/b"])),
    st.integers(0, 9).map(np.int64),
    st.builds(object),
)


@settings_of_hypothesis(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["data", *settings()]) | st.text(max_size=6), ANYTHING, max_size=3))
def test_whatever_is_said_is_a_configuration_or_one_line(tmp_path: Path, said: dict[str, Any]) -> None:
    try:
        made = configure(**said)
    except ConfigError as error:
        assert str(error)
        assert "\n" not in str(error)
    else:
        made.to_toml(tmp_path / "config.toml")
        assert Config.from_toml(tmp_path / "config.toml") == made


@settings_of_hypothesis(max_examples=200, deadline=None)
@given(st.sampled_from([f.name for f in dataclasses.fields(Config)]), ANYTHING)
def test_a_field_of_another_type_is_refused(name: str, value: object) -> None:
    """`Config` itself checks, also where no `configure` stands before it."""
    try:
        made = config(**{name: value})
    except ConfigError as error:
        assert name in str(error) or name.replace("_", " ") in str(error) or "no strategy given" in str(error)
    else:
        expected = type(getattr(config(), name))
        assert type(getattr(made, name)) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"robustness": 100}, "robustness is 100 (int): expected text, such as '100'"),
        ({"line": 100}, "line is 100 (int): expected text or None, such as '100'"),
        ({"seed": "3"}, "seed is '3' (str): expected a whole number"),
        ({"seed": True}, "seed is True (bool): expected a whole number"),
        ({"image_size": 224.0}, "image_size is 224.0 (float): expected a whole number"),
        ({"epochs": "3"}, "epochs is '3' (str): expected a whole number or None"),
        ({"preset": "fats"}, "unknown preset 'fats'; did you mean 'fast'? (known: fast, balanced, best)"),
        ({"strategies": {"frozen": 1}}, "strategies is {'frozen': 1} (dict): expected text or a list of text"),
        ({"data": ["a", "b"]}, "data is ['a', 'b'] (list): expected text or a path"),
        ({"data": ""}, "data is empty: expected the path of your photos"),
        ({"data": "a\0b"}, "data 'a\\x00b' is no path: embedded null byte"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(said: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        configure(**said)
    assert str(error.value) == expected


def test_all_that_is_wrong_is_told_at_once_and_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError) as error:
        configure(sead=3, engine="onx", image_size=8)
    for part in (
        "unknown setting 'sead'; did you mean 'seed'?",
        "unknown engine 'onx'; did you mean 'onnx'?",
        "image size 8",
    ):
        assert part in str(error.value)


def test_names_paths_and_numbers_may_be_said_in_any_usual_form(tmp_path: Path) -> None:
    listed = configure(tmp_path, strategies=["frozen", "baseline"], seed=3, test=str(tmp_path / "other"))
    assert configure(str(tmp_path), strategies="frozen, baseline", seed=np.int64(3), test=tmp_path / "other") == listed
    assert (
        configure(tmp_path, strategies=("frozen", "baseline"), seed=3, test=tmp_path / "other", weights=None) == listed
    )
    assert configure(strategies="frozen").data == SAMPLE


def test_a_path_stands_for_its_configuration(tmp_path: Path) -> None:
    assert configured(tmp_path) == configured(str(tmp_path)) == configure(tmp_path)
    assert configured(config()) == config()
