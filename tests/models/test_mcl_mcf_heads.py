"""MCL-MCF's Table 9: counts to the unit, and every encoder in the whole model."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from groups import in_ci

from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.models.mcl_mcf_heads import ImageHead
from mmfusion_jax.types import Batch, Tokens

PAIRS = ("text", "video"), ("text", "audio"), ("video", "audio")
TINY = {
    "tslc": {},
    "resnet18": {"base_channels": 4, "blocks": (1,)},
    "vit": {
        "hidden_dim": 8,
        "num_heads": 2,
        "mlp_dim": 8,
        "num_layers": 1,
        "patch_size": 4,
    },
}


@pytest.mark.parametrize(
    ("encoder", "side", "count"),
    [
        ("resnet18", 128, 11_817_640),
        ("resnet34", 128, 21_925_800),
        ("resnet50", 128, 25_685_160),
        ("tslc", 256, 24_774_302),
    ],
)
def test_counts_of_the_paper(encoder, side, count):
    init = functools.partial(ImageHead(PAIRS, encoder).init, train=False)
    vector = Tokens(jnp.zeros((1, 1, side)), jnp.ones((1, 1), bool))
    streams = {m: vector for m in ("text", "audio", "video")}
    params = jax.eval_shape(init, jax.random.key(0), streams)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def made_up():
    """Four examples; the second has audio alone, the fourth nothing."""
    inputs, masks = {}, {}
    for i, m in enumerate(("text", "audio", "video")):
        inputs[m] = jax.random.normal(jax.random.key(i), (4, 1, 5))
        masks[m] = jnp.ones((4, 1), bool).at[3].set(False)
        if m != "audio":
            masks[m] = masks[m].at[1].set(False)
    return Batch(inputs, masks, {"label": jnp.zeros(4)}, jnp.ones(4))


@pytest.mark.parametrize("encoder", in_ci(TINY, "tslc"))
def test_builds_and_learns(encoder):
    batch = made_up()
    model = MCLMCF(
        {m: Precomputed() for m in batch.inputs},
        1,
        mixture_dim=4,
        projection_dim=16,
        hidden_dim=6,
        contrastive_dim=4,
        levels=(),
        dropout=0.0,
        image_encoder=encoder,
        image_encoder_kwargs=TINY[encoder],
    )
    tree = jax.jit(functools.partial(model.init, train=True))(jax.random.key(3), batch)
    assert not {"mix", "fuse"} & tree["params"].keys()

    def loss(params, batch):
        variables = {**tree, "params": params}
        out, _ = model.apply(variables, batch, train=True, mutable=["batch_stats"])
        return jnp.sum(out.prediction[:3] ** 2), out.aux["fused"]

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, fused), grads = run(tree["params"], batch)
    chex.assert_tree_all_finite((value, grads))
    assert fused.shape == (4, 6)
    assert np.all(np.any(fused[np.array([0, 2])], axis=-1))
    assert not np.any(fused[np.array([1, 3])])
    first = jax.tree.leaves(grads["image_head"])
    assert all(np.any(leaf) for leaf in first[-2:])
    hidden = {
        m: jnp.where(batch.masks[m][..., None], x, np.nan)
        for m, x in batch.inputs.items()
    }
    chex.assert_trees_all_equal(
        run(tree["params"], batch.replace(inputs=hidden))[1], grads
    )


def test_an_unknown_encoder_is_named():
    batch = made_up()
    model = MCLMCF(
        {m: Precomputed() for m in batch.inputs}, 1, image_encoder="resnet19"
    )
    with pytest.raises(ConfigError, match=r"(?s)C03.*'resnet19'.*'resnet18'"):
        jax.eval_shape(
            functools.partial(model.init, train=False), jax.random.key(0), batch
        )
