"""Errors that are found while a model is traced name the field of the config."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmfusion_jax as mmf
from mmfusion_jax.errors import ConfigError, DataError
from mmfusion_jax.layers.option_path import option_path
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import CrossEntropy

WIDTH = 10


def batch(*modalities: str) -> mmf.Batch:
    inputs = {m: jnp.ones((2, 6, 6)) for m in modalities}
    return mmf.Batch(inputs, {m: jnp.ones((2, 6), bool) for m in modalities})


def traced(model, *modalities: str) -> None:
    init = lambda: model.init(jax.random.key(0), batch(*modalities), train=False)
    jax.eval_shape(init)


def fused(encoders, fusion):
    return mmf.models.Fused(encoders, 3, fusion, projection_dim=WIDTH)


IDENTITY = {m: mmf.encoders.Precomputed() for m in ("audio", "video")}


@pytest.mark.parametrize(
    ("model", "message", "fix"),
    [
        (
            fused(IDENTITY, mmf.fusion.CrossModalAlignment(("audio", "video"), 4)),
            "config.model.fusion.num_heads=4 does not divide the width 10.",
            "--config.model.fusion.num_heads=2, a divisor of 10",
        ),
        (
            fused(
                IDENTITY,
                mmf.fusion.ModalityReinforcement(("audio", "video"), num_heads=4),
            ),
            "config.model.fusion.num_heads=4 does not divide the width 10.",
            "--config.model.fusion.num_heads=2, a divisor of 10",
        ),
        (
            fused(IDENTITY, mmf.fusion.MultimodalTransfer(("audio", "video"), 41)),
            "config.model.fusion.reduction=41 of",
            "--config.model.fusion.reduction=40 or less",
        ),
        (
            fused(
                {**IDENTITY, "audio": mmf.encoders.FeatureTokens(4, 5)},
                mmf.fusion.Identity(),
            ),
            "config.model.encoders.audio.features_per_token=5 does not divide",
            "",
        ),
        (
            fused(
                {**IDENTITY, "video": mmf.encoders.ConvLSTM(hidden_dim=7)},
                mmf.fusion.Identity(),
            ),
            "config.model.encoders.video.hidden_dim=7 must be even",
            "--config.model.encoders.video.hidden_dim=8",
        ),
        (
            fused(
                {**IDENTITY, "audio": mmf.encoders.AudioConv(8, pool=16)},
                mmf.fusion.Identity(),
            ),
            "config.model.encoders.audio.pool=16 needs at least 20 steps",
            "use longer clips",
        ),
    ],
)
def test_the_field_of_a_part_is_named(model, message, fix):
    with pytest.raises((ConfigError, DataError)) as caught:
        traced(model, "audio", "video")
    assert message in str(caught.value) and caught.value.fix.startswith(fix)


def test_a_layer_names_the_field_of_the_model_that_made_it():
    video = mmf.encoders.ResNeXt3D(blocks=(1,), base_channels=4)
    model = mmf.models.CFNSR({"audio": mmf.encoders.AudioConv(10, pool=1),
                              "video": video}, head_size=3, num_heads=4)  # fmt: skip
    x = {"audio": jnp.ones((2, 20, 13)), "video": jnp.ones((2, 4, 16, 16, 3))}
    masks = {m: jnp.ones(v.shape[:2], bool) for m, v in x.items()}
    init = lambda: model.init(jax.random.key(0), mmf.Batch(x, masks), train=False)
    with pytest.raises(ConfigError, match=r"config\.model\.num_heads=4 does not"):
        jax.eval_shape(init)


class Outer(nn.Module):
    """A model that has another name for the options of its layers."""

    encoders: dict
    heads: int = 3
    widths: tuple = (1, 2)

    @nn.compact
    def __call__(self):
        return Inner(1, 2, name="encoders_text")()


class Inner(nn.Module):
    num_heads: int
    width: int

    def __call__(self):
        return option_path(self, "num_heads"), option_path(self, "width")


def test_another_name_of_the_option_is_not_made_up():
    found = Outer({}).apply({})
    assert found == ("config.model: num_heads", "config.model.widths: width")
    # A module with the name of an encoder which is not one belongs to the model.
    assert Inner(1, 2).apply({}) == ("num_heads", "width")  # no model around it


def test_a_loss_term_is_named():
    term = WeightedLoss(CrossEntropy("emotion", class_weights=(1.0, 2.0)), 1.0)
    outputs = mmf.Outputs(jnp.zeros((2, 3)), {})
    labels = {"emotion": jnp.zeros(2, int)}
    made = mmf.Batch({}, {}, labels, jnp.asarray(np.ones(2, np.float32)))
    with pytest.raises(ConfigError, match=r"config\.losses\.task: class_weights="):
        Objective({"task": term})(outputs, made, jnp.array(0))
