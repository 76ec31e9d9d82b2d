"""Every config and every word after its colon loads, and names what exists."""

import dataclasses
import re
import runpy

import jax
import jax.numpy as jnp
import pytest
from loaded_tables import MODELS
from ml_collections import ConfigDict
from paths import ROOT

from mmfusion_jax.cli.flags import Flag, parse
from mmfusion_jax.config import build
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset, RegressionTarget
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.types import Batch

FOLDER = ROOT / "configs"
MEA = FOLDER / "mea.py"


def table_v() -> dict[str, list[str]]:
    """Row of MEA's Table V -> the flags that its config says it needs."""
    rows: dict[str, list[str]] = {}
    for line in runpy.run_path(str(MEA))["__doc__"].splitlines():
        if match := re.match(r"    (w/o? \S.*?)  +(?=(?:model|losses)\.)", line):
            rows[match[1]] = flags = []
        elif not re.match(r"     +(?:model|losses)\.", line):
            continue
        flags += [f"--config.{word}" for word in re.findall(r"\S+=\S+", line)]
    return rows


TABLE_V = table_v()
PLAIN = [f"--config={MEA}:mosi"]
ALL = {"task", "disparity", "agnostic", "exclusive", "importance"}
WITHOUT = {
    "w/ L_sep": set(),
    "w/o L_dis": {"disparity"},
    "w/o L_agn + L_exc": {"agnostic", "exclusive", "importance"},
    "w/o omega": {"importance"},
    "w/o exclusive": {"disparity", "exclusive"},
    "w/o agnostic": {"disparity", "agnostic", "importance"},
}
"""Row -> the loss terms that go with what it leaves out."""


@pytest.mark.parametrize("word", ["", ":ravdess", ":ravdess_features", ":clips"])
def test_cfn_sr(word):
    config = load_config(f"{FOLDER / 'cfn_sr.py'}{word}")
    assert config.model.name == "cfn_sr"


def test_the_released_code_is_one_word():
    config = load_config(f"{FOLDER / 'cfn_sr.py'}:ravdess_released_code")
    video = config.model.encoders.video
    assert config.data.name == "ravdess" and config.data.augment_per_frame
    assert config.model.variant == config.data.crop == "released_code"
    assert (video.stem_relu, video.channel_order) == (False, "bgr")
    assert resolve(config).model.encoders["video"].options["channel_order"] == "bgr"


AV_MNIST = {
    "hetero_fusion_net.py:av_mnist": "gate",
    "hetero_fusion_net.py:av_mnist_early": "audio",
    "hetero_fusion_net.py:av_mnist_late": "logits/image",
    "hetero_fusion_net.py:av_mnist_audio": "audio",
    "hetero_fusion_net.py:av_mnist_image": "image",
    "of_cmaer_cat.py:av_mnist": "alpha",
    "cfn_sr.py:av_mnist": "attention",
}
SIZES = {"gate": (2,), "alpha": (2, 2), "attention": (9,), "logits/image": (10,)}
SIZES |= {"audio": (576,), "image": (64,)}


@pytest.mark.parametrize("word", AV_MNIST)
def test_av_mnist(word):
    config = resolve(load_config(str(FOLDER / word)))
    data = Dataset("", "", {}, classes={"digit": tuple("0123456789")})
    task = build.build_task(config, data)
    model = build.build_model(config, task, None).model
    objective = build.build_objective(config, task)
    inputs = {"audio": jnp.zeros((3, 1, 112, 112, 1))}
    inputs["image"] = jnp.zeros((3, 1, 28, 28, 1))
    masks = {m: jnp.ones((3, 1), bool) for m in inputs}
    batch = Batch(inputs, masks, {"digit": jnp.zeros(3, int)}, jnp.ones(3))

    def run():
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        outputs, _ = model.init_with_output(keys, batch, train=True)
        return outputs, objective(outputs, batch, jnp.zeros(()))

    outputs, (loss, _) = jax.eval_shape(run)
    assert outputs.prediction.shape == (3, 10) and loss.shape == ()
    name = AV_MNIST[word]
    size = (64,) if word.endswith("early") else SIZES[name]
    assert outputs.aux[name].shape == (3, *size)


def config_of(words: list[str]) -> ConfigDict:
    """The config that a command line asks for."""
    return parse(words, (Flag("workdir", "", "where to"),), True).config


def losses_of_mea(*flags: str) -> dict:
    """The loss terms of a small MEA, as shapes."""
    sizes = ("model.psa_layers=2", "model.hca_layers=1", "model.num_heads=2")
    words = [*PLAIN, *(f"--config.{size}" for size in sizes), *flags]
    config = resolve(config_of(words))
    task = build.build_task(
        config, Dataset("", "", {}, values={"score": RegressionTarget(-3, 3)})
    )
    model = build.build_model(config, task, None).model
    objective = build.build_objective(config, task)
    inputs = {m: jnp.zeros((3, 2, 4)) for m in config.model.modalities}
    masks = {m: jnp.ones((3, 2), bool) for m in inputs}
    batch = Batch(inputs, masks, {"score": jnp.zeros(3)}, jnp.ones(3))

    def run():
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        outputs, _ = model.init_with_output(keys, batch, train=True)
        return objective(outputs, batch, jnp.zeros(()))[1]

    return jax.eval_shape(run)


def test_rows_of_table_v_are_flags():
    assert len(TABLE_V) == 16 and TABLE_V.keys() >= WITHOUT.keys()
    for flags in TABLE_V.values():
        assert config_of([*PLAIN, *flags]) != config_of(PLAIN)


@pytest.mark.parametrize("row", WITHOUT)
def test_rows_of_table_v_leave_out_losses(row):
    assert losses_of_mea(*TABLE_V[row]).keys() == ALL - WITHOUT[row]


def test_one_flag_tells_model_and_loss_what_omega_is():
    config = config_of([f"--config={MEA}", "--config.model.omega=joint"])
    assert config.losses.agnostic.omega == "joint"


def test_every_option_of_mea_is_a_flag():
    config = load_config(f"{MEA}:mosi")
    options = {field.name for field in dataclasses.fields(MODELS["mea"])}
    by_others = {"encoders", "head_size", "dtype", "output_bias_init", "parent", "name"}
    assert options - by_others <= set(config.model)
    for encoder in config.model.encoders.values():
        assert {"hidden_dim", "kernel_size", "positions"} <= set(encoder)


def test_rows_of_av_mnist_have_one_recipe():
    configs = [load_config(str(FOLDER / word)) for word in AV_MNIST]
    first = configs[0]
    for config in configs:
        options = config.data.to_dict() | {"modality_dropout": None}
        assert options == first.data.to_dict() | {"modality_dropout": None}
        for name, encoder in config.model.encoders.items():
            assert encoder == first.model.encoders[name]
        for field in ("name", "learning_rate", "schedule"):
            assert config.optim[field] == first.optim[field]
        assert config.train.epochs == first.train.epochs
        assert config.seed == 0 and config.pretrain_unimodal == ()


@pytest.mark.parametrize("word", ["av_mnist_text", "av_mnist_", "mosei_image", "av"])
def test_a_modality_that_the_data_lacks_is_refused(word):
    with pytest.raises(ConfigError, match="each of them with _early, _late, or _ and"):
        load_config(f"{FOLDER / 'hetero_fusion_net.py'}:{word}")
