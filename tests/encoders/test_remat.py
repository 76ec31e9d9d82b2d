"""`remat` recomputes the blocks of an encoder and changes no result."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

from mmfusion_jax.encoders.bert import Bert
from mmfusion_jax.encoders.r3d import R3D
from mmfusion_jax.encoders.resnet import ResNet
from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.encoders.vit import ViT
from mmfusion_jax.encoders.wav2vec2 import Wav2Vec2

SMALL = dict(hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=16, dropout=0.5)
WAVES = dict(channels=4, kernels=(4,), strides=(2,), pos_conv_kernel=2)
CLIP, IMAGES = (2, 2, 8, 8, 3), (2, 2, 4, 4, 3)
ENCODERS = {
    "bert": (Bert(**SMALL, vocab_size=9), (2, 5)),
    "vit": (ViT(**SMALL, patch_size=2), IMAGES),
    "wav2vec2": (Wav2Vec2(**SMALL, **WAVES, pos_conv_groups=1), (2, 12)),
    "resnet": (ResNet(blocks=(1, 1), kind="basic", base_channels=4), IMAGES),
    "r3d": (R3D(blocks=(1, 1), base_channels=4), CLIP),
    "resnext_3d": (ResNeXt3D(blocks=(1, 1), base_channels=4), CLIP),
}


DEFAULT = ("bert", "resnet")  # one of each kind of block; the others in CI


@pytest.mark.parametrize(
    "name",
    [n if n in DEFAULT else pytest.param(n, marks=pytest.mark.ci) for n in ENCODERS],
)
def test_remat_changes_no_number(name):
    # BatchNorm of few positions amplifies rounding errors.
    with double():
        check(*ENCODERS[name])


def check(encoder, shape):
    values = np.random.default_rng(0).normal(size=shape)
    mask = np.ones(shape[:2], bool)
    mask[0, -shape[1] // 2 :] = False
    if isinstance(encoder, Bert):
        values = np.abs(values * 3).astype(np.int32)
    else:
        values[0, -shape[1] // 2 :] = np.nan
    init = functools.partial(encoder.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), values, mask)
    params, stats = variables["params"], variables.get("batch_stats", {})

    def loss(remat, params):
        tokens, updated = encoder.copy(remat=remat).apply(
            {"params": params, "batch_stats": stats},
            values,
            mask,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return jnp.sum(jnp.sin(tokens.values)), updated

    results, kept = [], []
    for remat in (False, True):
        of = functools.partial(loss, remat)
        results.append(jax.jit(jax.value_and_grad(of, has_aux=True))(params))
        saved = jax.eval_shape(lambda p, of=of: jax.vjp(of, p, has_aux=True)[1], params)
        kept.append(sum(math.prod(x.shape) for x in jax.tree.leaves(saved)))
    # The parameters of the encoder without remat fit the one with it: same paths.
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)
    chex.assert_tree_all_finite(results)
    assert kept[1] < kept[0]
