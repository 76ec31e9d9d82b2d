"""The alignment module beside the released code's numbers, and its masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_msa import fill, load
from loaded_tables import LOSSES
from masking_contract import assert_ignores_poison, poison

from mmfusion_jax.layers.ctc_alignment import CTCAlignment
from mmfusion_jax.types import Batch, Outputs, Tokens

pytestmark = pytest.mark.ci

MASK = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)


def loss(logits, mask):
    """The loss of (b s 1+n) logits, (b)."""
    batch = Batch({}, {"audio": mask}, {}, jnp.ones(len(mask)))
    aux = {"ctc/audio": logits, "ctc/audio/valid": mask}
    return LOSSES["ctc"](("audio",))(Outputs(logits, aux), batch)


def from_torch(names):
    """Converts the parameters of PyTorch's two layers."""
    width, features = 5, 5

    def array(part, layer):
        (name,) = [n for n in names if n.endswith(f"{part}_l{layer}")]
        shape = (4 * width, features) if part.startswith("weight") else (4 * width,)
        return fill(name, shape).astype(np.float32).T[None]

    return {
        f"lstm_{i}": {
            "input_kernel": array("weight_ih", i),
            "recurrent_kernel": array("weight_hh", i),
            "bias": array("bias_ih", i) + array("bias_hh", i),
        }
        for i in range(2)
    }


@pytest.mark.versions  # the way back gets NumPy weights
def test_golden(golden):
    arrays = load(golden)
    params = {"params": from_torch(arrays["mult_ctc/params.names"].tolist())}
    x = jnp.asarray(arrays["mult_ctc/in.x"], jnp.float32)
    mask = jnp.ones(x.shape[:2], bool)
    run = lambda x: CTCAlignment(4).apply(params, Tokens(x, mask), train=False)
    aligned, logits = run(x)
    close = lambda got, name: np.testing.assert_allclose(
        got, arrays[f"mult_ctc/{name}"], rtol=2e-5, atol=2e-6
    )
    close(aligned.values, "aligned")
    close(logits, "logits")
    total = lambda x: jnp.sum(loss(run(x)[1], mask))
    close(total(x), "loss_sum")
    close(jax.grad(total)(x), "grad.x")


@pytest.fixture(scope="module")
def tokens():
    return Tokens(jax.random.normal(jax.random.key(0), (3, 5, 2)), MASK)


@pytest.mark.ci
def test_masked_values_change_nothing(tokens):
    layer = CTCAlignment(3)
    params = layer.init(jax.random.key(1), tokens, train=False)

    def total(params, tokens):
        aligned, logits = layer.apply(params, tokens, train=False)
        return jnp.sum(aligned.values**2) + jnp.sum(loss(logits, tokens.mask))

    assert_ignores_poison(total, params, lambda bad: poison(tokens, bad))


def test_a_missing_modality_has_no_place(tokens):
    (aligned, logits), _ = CTCAlignment(3).init_with_output(
        jax.random.key(1), tokens, train=False
    )
    assert aligned.values.shape == (3, 3, 2) and logits.shape == (3, 5, 4)
    assert aligned.mask.all(axis=1).tolist() == [True, True, False]
    assert not np.any(aligned.values[2]) and not np.any(aligned.mask[2])
