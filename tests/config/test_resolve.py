"""A config is read once: every mistake in it is one error with a code and a hint."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
import tiny_dataset
from flax import linen as nn
from ml_collections import ConfigDict

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.base import FIELDS, GROUPS, REQUIRED, base_config
from mmfusion_jax.config.load import flatten, installed_configs, load_config
from mmfusion_jax.config.resolve import resolve, unimodal_spec
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.config.validate import check_type, matches
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.metrics.regression import RMSE
from mmfusion_jax.option_types import Fraction, PositiveInt, PositiveInts
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.runner import experiment
from mmfusion_jax.types import Outputs

CONFIGS = sorted(path.stem for path in installed_configs().glob("*.py"))


def without(config: ConfigDict, name: str) -> ConfigDict:
    """The config without a field."""
    group, _, last = name.rpartition(".")
    level = config
    for word in filter(None, group.split(".")):
        level = level[word]
    del level[last]
    return config


def error_of(config: ConfigDict) -> ConfigError:
    with pytest.raises(ConfigError) as info:
        resolve(config)
    lines = str(info.value).splitlines()
    assert len(lines) <= 2 and lines[0].startswith("error[C")
    return info.value


def test_the_base_has_every_field_that_has_a_default():
    values = flatten(base_config())
    defaults = {k: f.default for k, f in FIELDS.items() if f.default is not REQUIRED}
    assert values == defaults
    assert all(field.help.endswith(".") for field in FIELDS.values())
    assert resolve(tiny_dataset.config()).training.patience == 0


@pytest.mark.parametrize("name", [*FIELDS, *GROUPS])
def test_a_field_that_is_missing_is_named(name):
    config = without(tiny_dataset.config(), name)
    error = error_of(config)
    assert error.code == "C31" and f"config.{name} is missing" in str(error)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_another_type_is_named(name):
    config = tiny_dataset.config()
    old = flatten(config)[name]
    config.unlock()
    wrong = 3.5 if isinstance(old, int) else 7 if isinstance(old, str) else "x"
    group, _, last = name.rpartition(".")
    level = config
    for word in filter(None, group.split(".")):
        level = level[word]
    with level.ignore_type():
        level[last] = wrong
    error = error_of(config)
    assert error.code in ("C11", "C03") and name in str(error)


@pytest.mark.parametrize(
    ("group", "code"),
    [
        ("", "C02"),
        ("data", "C02"),
        ("model", "C02"),
        ("model.encoders.video", "C02"),
        ("losses.task", "C02"),
        ("optim", "C02"),
        ("optim.schedule", "C02"),
        ("optim.reduce_on_plateau", "C02"),
        ("train", "C02"),
        ("distributed", "C02"),
    ],
)
def test_a_field_that_nothing_has_is_named(group, code):
    config = tiny_dataset.config()
    level = config
    for word in filter(None, group.split(".")):
        level = level[word]
    level.nonsense = 1
    error = error_of(config)
    assert error.code == code and "nonsense is unknown" in str(error)
    assert error.fix.startswith(("did you mean", "known:"))


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"train": 3}, "C11", "config.train=3 is not a group"),
        ({"losses": {"task": "mse"}}, "C11", "losses.task"),
        ({"losses": {}}, "C14", "must have a term 'task'"),
        ({"model.encoders": {"video": {}}}, "C31", "encoders.video.name is missing"),
        ({"data.fold": "7"}, "C06", "'7' is not a fold"),
        ({"protocol": "fixed_epochs"}, "C06", "not supported by 'tiny_dataset:tones'"),
        ({"pretrain_unimodal": ("smell",)}, "C13", "'smell', which has no encoder"),
        ({"optim.weight_decay": 0.1}, "C08", "requires an optimizer with weight decay"),
        ({"optim.groups": {"a": {"rate": 1.0}}}, "C02", "groups.a.rate is unknown"),
        ({"optim.groups": {"a": {}}}, "C31", "groups.a.param_prefix is missing"),
        ({"train.selection_metric": "acuracy"}, "C16", "did you mean 'accuracy'"),
        ({"metrics": {"x": {"name": "tiny_dataset:CLASSES"}}}, "C33", "not a metric"),
        ({"model.name": "test_resolve:NoModel"}, "C31", "config.model.size is missing"),
        ({"data.name": "test_resolve:CONFIGS"}, "C32", "a class or a function"),
        ({"mis": {"weight": 1}}, "C02", "config.mis.weight is unknown"),
        ({"mis": 3}, "C11", "config.mis=3 is not a group"),
        ({"seed": None}, "C31", "config.seed is not set"),
        ({"seed": 2**70}, "C10", "at most 2147483647"),
        ({"optim.learning_rate": float("inf")}, "C10", "a number above 0"),
        ({"data.fold": "²"}, "C06", "'²' is not a fold"),
        ({"data.valid": object()}, "C11", "not a value of a config"),
        ({"model.dropout": 1.5}, "C10", "config.model.dropout=1.5 is out of range"),
        ({"model.audio_pooling": None}, "C03", "=None is not an allowed value"),
        ({"model.encoders": {}}, "C22", "requires exactly one encoder"),
        ({"model.encoders.video.hidden_dim": 0}, "C10", "a number at least 1"),
        ({"model.encoders.video.weights": 3}, "C11", "weights=3 is not a string"),
        (
            {"model.encoders": {"video": {"name": "resnet", "blocks": ()}}},
            "C10",
            "blocks=() is out of range.\n  fix: at least one element",
        ),
        (
            {"model.name": "tiny_dataset.Tones"},
            "C03",
            "did you mean the import path 'tiny_dataset:Tones'?",
        ),
        ({"losses": {"task": {}}}, "C31", "config.losses.task.name is missing"),
        ({"losses.task.weight": "1"}, "C11", "weight='1' is not a number"),
        (
            {"losses.x": {"name": "consistency", "modalities": ("smell",)}},
            "C13",
            "config.losses.x.modalities names 'smell', which has no encoder",
        ),
        ({"data.augmentations": {"audio": 3}}, "C11", "augmentations.audio=3 is not"),
        ({"data.modality_dropout": {"audio": {"a": 1}}}, "C11", "is not a number"),
        (
            {"data.modality_dropout": {"smell": 0.1}},
            "C03",
            "smell is not a modality",
        ),
        ({"optim.groups": {"a": 3}}, "C11", "config.optim.groups.a=3 is not a group"),
        ({"optim.optimizer": "sgd"}, "C02", "config.optim.optimizer is unknown"),
        ({"optim.schedule.warmup_steps": -1}, "C02", "warmup_steps is unknown"),
    ],
)
def test_what_cannot_work_is_one_error(changes, code, said):
    config = tiny_dataset.config()
    for name, value in changes.items():
        group, _, last = name.rpartition(".")
        level = config
        for word in filter(None, group.split(".")):
            level = level[word]
        with level.ignore_type():
            level[last] = value
    with pytest.raises(ConfigError) as info:
        spec = resolve(config)
        data = build_data.build_dataset(spec, build_data.fold_numbers(spec)[0])
        parts = build.build_components(spec, data, 1)
        batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
        jax.eval_shape(lambda: parts.model.init(jax.random.key(0), batch, train=False))
    assert info.value.code == code and said in str(info.value)


@pytest.mark.parametrize(
    ("label", "loss", "fits"),
    [
        ("label", "cross_entropy", True),
        ("label", "mse", False),
        ("label", "multilabel", False),
        ("score", "cross_entropy", False),
        ("score", "l1", True),
        ("score", "multilabel", False),
        ("flags", "cross_entropy", False),
        ("flags", "l1", False),
        ("flags", "multilabel", True),
    ],
)
def test_a_loss_for_another_type_of_label_is_named(label, loss, fits):
    changes = {"data.label": label, "losses.task.name": loss}
    config = tiny_dataset.config(**changes, **{"train.selection_metric": "loss"})
    spec = resolve(config)
    data = build_data.build_dataset(spec, 0)
    parts = build.build_components(spec, data, 1)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    size = parts.task.head_size
    shape = (8,) if size == 1 else (8, size)
    value = lambda: parts.objective.value("task", Outputs(jnp.zeros(shape)), batch)
    if fits:
        assert jnp.isfinite(value())
        return
    with pytest.raises(ConfigError, match=f"the loss '{loss}' does not fit") as info:
        value()
    assert info.value.code == "C34"


class NoModel(nn.Module):
    """A model whose config forgets a size."""

    encoders: dict
    head_size: int
    size: int


def test_a_config_file_that_forgets_everything_is_no_bug(tmp_path, capsys):
    path = tmp_path / "mine.py"
    body = "from ml_collections import ConfigDict\ndef get_config():\n    return {}"
    for made in ("ConfigDict()", "ConfigDict(dict(model=dict(name='mea')))"):
        path.write_text(body.format(made))
        command = Command("x", "Does.", lambda r: resolve(r.config) and None)
        words = [f"--config={path}", f"--workdir={tmp_path}"]
        assert run_command(command, words) == 2
        assert "error[C31] config." in capsys.readouterr().err


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_resolved_and_frozen(name):
    config = load_config(name)
    spec = resolve(config)
    assert json.loads(json.dumps(spec.source)) == json.loads(config.to_json())
    for field in dataclasses.fields(ExperimentSpec):
        assert not isinstance(getattr(spec, field.name), ConfigDict)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.seed = 3  # pyright: ignore
    assert spec.training.epochs == config.train.epochs


def test_bounds():
    check_type("x", (1, 2), PositiveInts)
    check_type("x", None, PositiveInt | None)
    for value, hint, allowed in (
        ((1, 0), PositiveInts, "a number at least 1"),
        (0, PositiveInt | None, "a number at least 1"),
        (2, Fraction, "a number at least 0 and at most 1"),
        ([1.0, float("nan")], tuple[float, float], "a finite number"),
        (2**31, int, "a number at most 2147483647"),
    ):
        with pytest.raises(ConfigError, match="out of range") as info:
            check_type("x", value, hint)
        assert (info.value.code, info.value.fix) == ("C10", allowed)


def test_types():
    assert matches(1, float) and not matches(1.0, int) and not matches(True, int)
    assert matches((1, 2), tuple[int, ...]) and not matches((1, "a"), tuple[int, ...])
    assert matches([1.0, 2], tuple[float, float]) and not matches("ab", tuple[str, ...])
    assert (
        matches(None, int | None) and matches({}, dict) and matches(object(), NoModel)
    )


def test_the_stage_of_a_modality_keeps_every_option():
    spec = resolve(load_config("mcl_mcf:mosi"))
    stage = unimodal_spec(spec, "text")
    assert stage.model.encoders == {"text": spec.model.encoders["text"]}
    assert stage.optimizer.groups == spec.optimizer.groups
    assert unimodal_spec(spec, "audio").optimizer.groups == {}
    same = ("data", "training", "distributed", "seed", "protocol", "compute_dtype")
    same += ("matmul_precision",)
    for name in same:
        assert getattr(stage, name) == getattr(spec, name)


def test_a_metric_of_the_config_is_selected_by_its_direction(tmp_path):
    config = tiny_dataset.config(**{"data.label": "score", "train.epochs": 6})
    config.losses.task.name = "mse"
    config.optim.learning_rate = 0.3  # so large that the last epoch is not the best
    config.metrics = {"rmse": {"name": "rmse"}, "mine": {"name": "test_resolve:WORST"}}
    config.train.selection_metric = "rmse"
    result = experiment.train(resolve(config), tmp_path, "a test")
    lines = [x for x in read_metrics(tmp_path) if x.kind == "eval"]
    (run,) = result.runs
    best = min(line.values["valid/rmse"] for line in lines)
    assert run.valid.scores["rmse"] == pytest.approx(best)
    assert max(line.values["valid/rmse"] for line in lines) > best
    assert result.metrics["rmse"].higher_is_better is False
    assert "mine" in result.summary.test
    page = (tmp_path / "report.html").read_text("utf-8")
    mean = result.summary.test["rmse"].mean
    assert f"{mean:.3f}" in page and f"{100 * mean:.1f} %" not in page


WORST = dataclasses.replace(RMSE, name="worst", label="RMSE again")
