"""MMTM's block: its equations, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.multimodal_transfer import MultimodalTransfer
from mmfusion_jax.types import Tokens

ORDER = ("audio", "video")


def streams():
    rng = np.random.default_rng(0)
    draw = lambda n, d: jnp.asarray(rng.normal(size=(3, n, d)), jnp.float32)
    made = {"audio": draw(5, 4), "video": draw(6, 8), "text": draw(2, 3)}
    return {m: Tokens(x, jnp.ones(x.shape[:2], bool)) for m, x in made.items()}


def test_follows_the_equations():
    block = MultimodalTransfer(ORDER)
    given = streams()
    mask = given["video"].mask.at[0].set(False).at[1, 4:].set(False)
    given["video"] = given["video"].replace(mask=mask)
    fused, tree = block.init_with_output(jax.random.key(0), given, train=False)
    p = jax.tree.map(np.asarray, tree["params"])
    assert p["squeeze"]["kernel"].shape == (12, 6)
    x = {
        m: np.asarray(t.values) * np.asarray(t.mask)[..., None]
        for m, t in given.items()
    }
    steps = np.maximum(np.asarray(mask).sum(axis=1), 1)[:, None]
    means = [x["audio"].mean(axis=1), x["video"].sum(axis=1) / steps]
    joint = np.concatenate(means, axis=1)
    z = np.maximum(joint @ p["squeeze"]["kernel"] + p["squeeze"]["bias"], 0)
    for m in ORDER:
        e = z @ p[f"excite_{m}"]["kernel"] + p[f"excite_{m}"]["bias"]
        want = x[m] * (2 / (1 + np.exp(-e)))[:, None]
        np.testing.assert_allclose(fused[m].values, want, rtol=1e-5, atol=1e-6)
    assert fused["text"] is given["text"]


def test_a_reduction_leaves_a_channel():
    with pytest.raises(ConfigError, match="reduction=25 .* leaves no channel of 12"):
        MultimodalTransfer(ORDER, 25).init(jax.random.key(0), streams(), train=False)
