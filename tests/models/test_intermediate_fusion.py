"""MMTM, MSAF and MCBP of CFN-SR's Table 1: counts, and where the blocks are."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from groups import in_ci

from mmfusion_jax.encoders.audio_conv import AudioConv
from mmfusion_jax.encoders.feature_tokens import FeatureTokens
from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.models.baselines import LateFusion
from mmfusion_jax.models.intermediate_fusion import (
    MMTM,
    MSAF,
    encode_with_blocks,
)
from mmfusion_jax.models.mcbp import MCBP
from mmfusion_jax.types import Batch

FULL = FrozenDict({"audio": AudioConv(), "video": ResNeXt3D()})
SMALL = FrozenDict(
    {"audio": AudioConv(8, 4, 4), "video": ResNeXt3D(blocks=(1, 1), base_channels=4)}
)
COUNTS = {
    "mmtm": (MMTM(FULL, 8), 31_496_512),
    "msaf": (MSAF(FULL, 8), 25_940_724),
    # Encoders, 8000 -> 512 -> 8; the paper's 51.03M cannot be derived.
    "mcbp": (MCBP(FULL, 8), 25_886_368 + 8001 * 512 + 513 * 8),
}


def make_batch(audio, clip):
    inputs = {"audio": jnp.asarray(audio), "video": jnp.asarray(clip)}
    masks = {name: jnp.ones(x.shape[:2], bool) for name, x in inputs.items()}
    return Batch(inputs, masks, {}, jnp.ones(len(audio)))


@functools.cache
def small_batch():
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(3, 5, 16, 16, 1)).astype(np.float32)
    batch = make_batch(rng.normal(size=(3, 24, 5)).astype(np.float32), clip)
    mask = batch.masks["video"].at[0, 3:].set(False)
    return batch.replace(masks={**batch.masks, "video": mask})


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_table_1(name):
    model, want = COUNTS[name]
    batch = make_batch(np.zeros((1, 212, 13)), np.zeros((1, 4, 32, 32, 3)))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(made["params"])) == want


def test_the_sites_have_the_channels_of_the_specification():
    seen = []

    def record(streams, *, train):
        seen.append({m: tokens.values.shape[1:] for m, tokens in streams.items()})
        return streams

    batch = make_batch(np.zeros((1, 212, 13)), np.zeros((1, 30, 224, 224, 3)))

    def run():
        def call(model):
            return encode_with_blocks(model.encoders, batch, [record, record], False)

        return LateFusion(FULL, 8).init(jax.random.key(0), method=call)

    jax.eval_shape(run)
    assert seen == [
        {"audio": (208, 32), "video": (4 * 14 * 14, 1024)},
        {"audio": (26, 64), "video": (2 * 7 * 7, 2048)},
    ]


@pytest.mark.ci
@pytest.mark.parametrize("train", [False, True])
def test_without_blocks_the_two_halves_are_the_encoder(train):
    same = lambda streams, *, train: streams

    def split(model):
        return encode_with_blocks(model.encoders, small_batch(), [same, same], train)

    def whole(model):
        return {
            m: encoder(
                small_batch().inputs[m], small_batch().valid_mask(m), train=train
            )
            for m, encoder in model.encoders.items()
        }

    model, batch = LateFusion(SMALL, 3), small_batch()
    tree = jax.jit(functools.partial(model.init, train=False))(jax.random.key(1), batch)
    run = lambda method: jax.jit(
        functools.partial(
            model.apply,
            method=method,
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
    )(tree)
    chex.assert_trees_all_close(run(split), run(whole), rtol=1e-5, atol=1e-6)


def without(batch, name):
    mask = batch.masks[name].at[0].set(False)
    return batch.replace(masks={**batch.masks, name: mask})


@pytest.mark.parametrize("kind", in_ci([MMTM, MSAF], slow=[MSAF]))
def test_logits_are_combined_of_the_present(kind):
    options = {"block_dims": (4, 4)} if kind is MSAF else {}
    model = kind(SMALL, 3, **options)
    run = jax.jit(functools.partial(model.init_with_output, train=False))
    outputs, _ = run(jax.random.key(0), without(small_batch(), "audio"))
    audio, video = (outputs.aux[f"logits/{m}"] for m in ("audio", "video"))
    total = audio + video if kind is MSAF else (audio + video) / 2
    np.testing.assert_allclose(outputs.prediction[1:], total[1:], rtol=1e-5)
    np.testing.assert_allclose(outputs.prediction[0], video[0], rtol=1e-5)


def test_an_encoder_without_a_site_is_refused():
    encoders = FrozenDict({**SMALL, "audio": FeatureTokens()})
    with pytest.raises(
        ConfigError, match=r"type FeatureTokens, which has no inner site"
    ):
        MMTM(encoders, 3).init(jax.random.key(0), small_batch(), train=False)
