"""MEA's blocks beside golden arrays of a second implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_msa import load, weights
from loaded_tables import LOSSES

from mmfusion_jax.fusion.graph_fusion import GraphFusion
from mmfusion_jax.fusion.hierarchical_attention import HierarchicalAttention
from mmfusion_jax.fusion.predictive_self_attention import (
    ModalityWeights,
    PredictiveSelfAttention,
)
from mmfusion_jax.fusion.reinforcement_unit import ReinforcementUnit
from mmfusion_jax.layers.mlp import MLP
from mmfusion_jax.layers.modality_discriminator import ModalityDiscriminator
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.ops.masking import masked_mean
from mmfusion_jax.types import Batch, Outputs, Tokens

ORDER = ("L", "V", "A")
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


@pytest.fixture(scope="module")
def arrays(golden):
    return load(golden)


@pytest.fixture(scope="module")
def torch(arrays):
    return weights(arrays, "spec")


@pytest.fixture(scope="module")
def streams(arrays):
    values = {m: arrays[f"spec_mea/in.Z{m}"].astype(np.float32) for m in ORDER}
    return {m: Tokens(x, np.ones(x.shape[:2], bool)) for m, x in values.items()}


def linear(torch, name):
    kernel = {"kernel": torch[f"{name}.weight"].T}
    bias = f"{name}.bias"
    return kernel | ({"bias": torch[bias]} if bias in torch else {})


def perceptron(torch, name, first="fc1", second="fc2"):
    return {
        "expand": linear(torch, f"{name}.{first}"),
        "shrink": linear(torch, f"{name}.{second}"),
    }


def units(torch, *names):
    """The parameters of a stack of units, one for each name."""
    trees = [unit(torch, name) for name in names]
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def unit(torch, name):
    get = lambda part: torch[f"{name}.{part}"]
    tree = {
        "norm_scale": get("ln1.weight"),
        "norm_bias": get("ln1.bias"),
        "query": get("Wq.weight").T,
        "key": get("Wk.weight").T,
        "value": get("Wv.weight").T,
        "feed_scale": get("ln2.weight"),
        "feed_bias": get("ln2.bias"),
        "expand": get("ffn1.weight").T,
        "expand_bias": get("ffn1.bias"),
        "shrink": get("ffn2.weight").T,
        "shrink_bias": get("ffn2.bias"),
    }
    if f"{name}.conv.weight" in torch:
        tree["conv"] = get("conv.weight").transpose(2, 3, 1, 0)
        tree["conv_bias"] = get("conv.bias")
    return tree


@pytest.mark.parametrize("form", ["literal", "logit"])
def test_golden_predictive_self_attention(arrays, torch, streams, form):
    make = functools.partial(ReinforcementUnit, num_heads=2, mu=0.25, form=form)
    params = {f"layer_{i}": units(torch, f"mea.psa.{i}") for i in range(3)}
    for depth in (1, 2, 3):
        block = PredictiveSelfAttention(("L",), make, depth, "off")
        tree = {"params": {k: params[k] for k in list(params)[:depth]}}
        got, extra = block.apply(tree, streams, train=False, mutable="intermediates")
        key = f"spec_mea/psa_{form}_head/layer{depth - 1}"
        close(got["L"].values, arrays[f"{key}.out"])
        seen = extra["intermediates"][f"layer_{depth - 1}"]["attention"][0][0]
        close(seen, arrays[f"{key}.attn"])
        assert got["V"] is streams["V"]


def weighing(torch):
    tree = {}
    for m in ORDER:
        w, b, p = (torch[f"mea.walt.{m}.{x}"] for x in "WbP")
        tree[f"{m}_look"] = {"kernel": w.T, "bias": b}
        tree[f"{m}_score"] = {"kernel": p[:, None]}
    return tree


def test_golden_modality_weights(arrays, torch, streams):
    block, tree = ModalityWeights(ORDER), {"params": weighing(torch)}
    got, extra = block.apply(tree, streams, train=False, mutable="intermediates")
    want = arrays["spec_mea/wal_token.psi"]
    close(extra["intermediates"]["psi"][0], want)
    close(got["A"].values, streams["A"].values * want[:, 2, None, None])


def hierarchy(torch):
    names = lambda step: [f"mea.hca.{m}.{step}" for m in ORDER]
    pairs = [f"mea.hca.{m}.fine_{s}" for m in ORDER for s in ORDER if s != m]
    return {
        "mixed_0": units(torch, *names("mixed")),
        "coarse_0": units(torch, *names("coarse")),
        "fine_0": units(torch, *pairs),
    }


@pytest.mark.ci
def test_golden_hierarchical_attention(arrays, torch, streams):
    tree = {"params": units(torch, "mea.mru")}
    layer = ReinforcementUnit(((0,),), num_heads=2)
    (got,), _ = layer.apply(tree, [streams["V"]], [streams["L"]], train=False)
    close(got.values, arrays["spec_mea/mru.V_to_L"])

    make = functools.partial(ReinforcementUnit, num_heads=2)
    block = HierarchicalAttention(ORDER, make, num_layers=1)
    got = block.apply({"params": hierarchy(torch)}, streams, train=False)
    close(got["L"].values, arrays["spec_mea/hca.L"])


def test_golden_encoders_and_graph(arrays, torch, streams):
    layer, vectors = MLP(6, 6), []
    for m in ORDER:
        tree = {"params": perceptron(torch, f"mea.S{m}")}
        x = masked_mean(streams[m].values, streams[m].mask, axis=1)
        vectors.append(layer.apply(tree, x, train=False))
    close(vectors[0], arrays["spec_mea/h_e.L"])

    tree = {
        "project": linear(torch, "mea.dgf_e.We"),
        "strength": linear(torch, "mea.dgf_e.Q"),
    }
    present = np.ones((3, 3), bool)
    got = GraphFusion().apply({"params": tree}, jnp.stack(vectors, axis=1), present)
    close(got, arrays["spec_mea/dgf.self_loops_False"])


def test_golden_agnostic_encoder(arrays, torch, streams):
    make = functools.partial(ReinforcementUnit, num_heads=2)
    block = HierarchicalAttention(ORDER, make, num_layers=1)
    target = block.apply({"params": hierarchy(torch)}, streams, train=False)["L"]
    tree = {"params": perceptron(torch, "mea.Agn")}
    x = masked_mean(target.values, target.mask, axis=1)
    got = MLP(6, 6).apply(tree, x, train=False)
    close(got, arrays["spec_mea/h_a.L"])


def adversaries(names):
    options = {"modalities": names}
    return {
        "agnostic": WeightedLoss(LOSSES["agnostic_adversary"](**options)),
        "exclusive": WeightedLoss(LOSSES["exclusive_adversary"](**options)),
    }


def test_golden_discriminators(arrays, torch):
    stored = lambda side: {
        m: arrays[f"spec_mea/adv/in.{side}.{m}"].astype(np.float32) for m in ORDER
    }
    params = {
        "modality": linear(torch, "mea.D.m"),
        "importance": {"kernel": torch["mea.D.Wi"]},
    }
    full = jnp.ones((4, 1), bool)
    batch = Batch({}, dict.fromkeys(ORDER, full), {}, jnp.ones(4))
    objective = Objective(adversaries(ORDER))

    def loss(params, own, common):
        aux = ModalityDiscriminator().apply({"params": params}, own, common, 3)
        outputs = Outputs(jnp.zeros(4), aux)
        return objective(outputs, batch, jnp.zeros(()))

    run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, terms), (layers, own, common) = run(params, stored("h_e"), stored("h_a"))
    want = lambda name: arrays[f"spec_mea/adv_detach_True/{name}"]
    close(terms["agnostic"], want("L_agn"))
    close(terms["exclusive"], want("L_exc"))
    close(layers["modality"]["kernel"].T, want("grad.Dm.weight"))
    for m in ORDER:
        close(own[m], want(f"grad.h_e.{m}"))
        close(common[m], want(f"grad.h_a.{m}"))
