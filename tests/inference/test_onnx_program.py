"""The rewritten function for ONNX: the same outputs, without what is not converted."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
from exported_runs import library_outputs, random_run, raw_examples

from mmfusion_jax.inference.onnx_program import export_onnx, simplify
from mmfusion_jax.inference.predictor import Predictor
from mmfusion_jax.inference.program import ProgramExporter

REJECTED = {"platform_index", "cond", "stack", "rem", "custom_vjp_call", "custom_jvp"}
ONNX = all(importlib.util.find_spec(name) for name in ("jax2onnx", "onnxruntime"))


def primitives(jaxpr) -> set[str]:
    """Names of all primitives, those of inner functions included."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in jax.tree.leaves(equation.params):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= primitives(inner)
    return found


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


def every_kind(x, rows):
    """A function of everything that is rewritten."""

    def step(total, row):
        index = jnp.abs(row).astype(int) % 3
        return total + row[index].sum(), jnp.stack([total, row[0]])

    total, stacked = jax.lax.scan(step, 0.0, rows, reverse=True)
    chosen = jax.lax.platform_dependent(x, cpu=lambda x: x + 1, default=lambda x: x - 1)
    products = jnp.einsum("bij,bkj->kbi", chosen, doubled(x))
    relu = jax.nn.relu(jax.lax.optimization_barrier(products))
    return {"a": total, "b": stacked, "c": relu, "d": jnp.tensordot(x, x, 3)}


@pytest.mark.ci
def test_a_rewritten_function_has_the_same_outputs():
    rng = np.random.default_rng(0)
    x, rows = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (5, 6)))
    simple = simplify(every_kind, x, rows)
    want, got = jax.tree.leaves(every_kind(x, rows)), simple(x, rows)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    found = primitives(jax.make_jaxpr(simple)(x, rows).jaxpr)
    assert "scan" in found and not found & REJECTED
    assert primitives(jax.make_jaxpr(every_kind)(x, rows).jaxpr) & REJECTED


@pytest.mark.ci
@pytest.mark.skipif(not ONNX, reason="the extra onnx is not installed")
@pytest.mark.parametrize("word", ["cfn_sr", "hetero_fusion_net"])
def test_onnx_runtime_gives_the_same_outputs(word, tmp_path):
    import onnxruntime

    config = small_configs.small(word, pretrain_unimodal=())
    run = random_run(config, small_configs.digits(), tmp_path)
    predictor = Predictor(run, 1)
    size = len(predictor.modalities) + 2
    exporter = ProgramExporter(run.model, run.variables, run.info, predictor.modalities)
    content, difference = export_onnx(exporter, size)
    assert difference < 1e-5
    inputs, masks = raw_examples(predictor, size)
    session = onnxruntime.InferenceSession(content)
    feed = {**inputs, **{f"{name}_mask": x for name, x in masks.items()}}
    names = [one.name for one in session.get_outputs()]
    got = dict(zip(names, session.run(None, feed), strict=True))
    want = library_outputs(predictor, inputs, masks)
    assert got.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, atol=1e-5, rtol=0)
