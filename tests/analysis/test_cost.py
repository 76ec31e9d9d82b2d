"""Counts of parameters and operations against figures worked out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mmfusion_jax.analysis.cost import (
    bytes_of,
    compiled_memory,
    count_macs,
    count_macs_per_example,
    count_parameters,
    output_shapes,
)
from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.results.model_result import Parameters
from mmfusion_jax.types import Batch, Outputs, Tokens

SHAPE = jax.ShapeDtypeStruct


def macs(function, *shapes: tuple[int, ...]) -> int:
    return count_macs(function, *(SHAPE(s, jnp.float32) for s in shapes)).total


def test_products():
    assert macs(lambda a, b: a @ b, (2, 3), (3, 5)) == 2 * 3 * 5
    batched = lambda a, b: jnp.einsum("bij,bjk->bik", a, b)
    assert macs(batched, (7, 2, 3), (7, 3, 5)) == 7 * 2 * 3 * 5
    outer = lambda a, b: jnp.einsum("bi,bj->bij", a, b)
    assert macs(outer, (7, 2), (7, 3)) == 7 * 2 * 3
    assert macs(lambda a: jnp.tanh(a) * a, (2, 3)) == 0


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (4, 1), (4, 2)])
def test_convolutions(groups, stride):
    conv = lambda x, w: lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    side = 6 // stride
    want = 2 * side * side * 16 * 3 * 3 * (8 // groups)
    assert macs(conv, (2, 6, 6, 8), (3, 3, 8 // groups, 16)) == want


def test_zeros_of_a_dilated_input_need_no_work():
    up = lambda x, w: lax.conv_transpose(x, w, (2,), "SAME")
    assert macs(up, (1, 6, 4), (2, 4, 5)) == 12 * 5 * 2 * 4 // 2


def test_what_surrounds_a_product():
    square = (3, 3)
    once = 3**3
    scan = lambda a: lax.scan(lambda c, _: (c @ a, None), a, None, length=7)[0]
    assert macs(scan, square) == 7 * once
    nested = lambda a: lax.scan(lambda c, _: (scan(c), None), a, None, length=2)[0]
    assert macs(nested, square) == 14 * once
    assert macs(jax.jit(jax.checkpoint(lambda a: a @ a)), square) == once
    dearer = lambda a: lax.cond(a[0, 0] > 0, lambda: a @ a @ a, lambda: a @ a)
    assert macs(dearer, square) == 2 * once
    assert macs(jax.vmap(lambda a: a @ a), (5, *square)) == 5 * once


@pytest.mark.versions
def test_labels_of_64_bits_are_counted_without_a_warning():
    class Sum(nn.Module):
        @nn.compact
        def __call__(self, batch, *, train):
            return batch.inputs["audio"] @ jnp.ones((3, 5)) + batch.labels["y"][:, None]

    batch = Batch(
        inputs={"audio": np.ones((4, 3), np.float32)},
        masks={"audio": np.ones(4, bool)},
        labels={"y": np.zeros(4, np.int64)},
    )
    assert count_macs_per_example(Sum(), {}, batch).total == 3 * 5


def test_the_default_form_of_a_platform_counts():
    @jax.custom_vjp
    def product(a, b):
        fused = lambda a, b: (a[:, :, None] * b[None]).sum(1)
        slow = lambda a, b: a @ b + a @ b
        return lax.platform_dependent(a, b, cpu=fused, tpu=slow, default=jnp.matmul)

    product.defvjp(lambda a, b: (product(a, b), None), lambda _, g: (g, g))
    assert macs(product, (3, 3), (3, 3)) == 27


def test_a_loop_without_a_known_end_is_named():
    def halve(a):
        return lax.while_loop(lambda c: c.sum() > 1, lambda c: c @ a, a)

    found = count_macs(halve, SHAPE((3, 3), jnp.float32))
    assert found.total == 27
    assert found.open_loops == 1


def test_the_gradient_of_a_product_costs_twice_as_much():
    loss = lambda w, x: jnp.sum(jnp.tanh(x @ w))
    both = jax.grad(loss, argnums=(0, 1))
    assert macs(both, (3, 5), (2, 3)) == 3 * 2 * 3 * 5


# specs of the paper's network at 30 x 224 x 224, in GMAC, from its layer table.
GMAC = {
    "stem": 24.783, "stage1": 10.814, "stage2": 11.047, "stage3": 7.617,
    "stage4": 2.315,
}  # fmt: skip


def test_resnext50_costs_what_its_layers_say():
    encoder = ResNeXt3D()
    clip = SHAPE((1, 30, 224, 224, 3), jnp.float32)
    mask = SHAPE((1, 30), bool)
    init = lambda c, m: encoder.init(jax.random.key(0), c, m, train=False)
    variables = jax.eval_shape(init, clip, mask)
    apply = lambda v, c, m: encoder.apply(v, c, m, train=False)
    found = count_macs(apply, variables, clip, mask)
    for part, want in GMAC.items():
        got = sum(n for k, n in found.components.items() if k.startswith(part))
        assert got / 1e9 == pytest.approx(want, abs=6e-4), part
    assert found.total / 1e9 == pytest.approx(56.58, abs=6e-3)
    assert found.open_loops == 0


class Tiny(nn.Module):
    """A dense encoder and a head."""

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        x = Encode(name="encode")(batch.inputs["audio"], batch.masks["audio"])
        return Outputs(self._head(x), {"x": x.values})

    def _head(self, x: Tokens):
        return nn.Dense(2, name="head")(x.values.mean(1))


class Encode(nn.Module):
    @nn.compact
    def __call__(self, x, mask) -> Tokens:
        return Tokens(nn.Dense(5)(x), mask)


@pytest.fixture(scope="module")
def tiny():
    shapes = Batch(
        {"audio": SHAPE((4, 6, 3), jnp.float32)},
        {"audio": SHAPE((4, 6), bool)},
        {"label": SHAPE((4,), jnp.int32)},
        SHAPE((4,), jnp.float32),
    )
    init = lambda b: Tiny().init(jax.random.key(0), b, train=False)
    return shapes, jax.eval_shape(init, shapes)


def test_components_are_the_modules(tiny):
    batch, variables = tiny
    assert count_parameters(variables["params"]) == Parameters(
        20 + 12, {"encode": 20, "head": 12}
    )
    apply = lambda v, b: Tiny().apply(v, b, train=False)
    assert count_macs(apply, variables, batch).components == {
        "encode": 4 * 6 * 3 * 5,
        "head": 4 * 5 * 2,
    }


def test_shapes_are_those_of_every_module(tiny):
    batch, variables = tiny
    assert output_shapes(Tiny(), variables, batch) == {
        "model": "prediction (4, 2), aux.x (4, 6, 5)",
        "encode": "values (4, 6, 5), mask (4, 6)",
        "encode/Dense_0": "(4, 6, 5)",
        "head": "(4, 2)",
    }


def test_memory():
    x = np.zeros((8, 16), np.float32)
    assert bytes_of({"x": x, "n": SHAPE((3,), jnp.int8)}) == 8 * 16 * 4 + 3
    found = compiled_memory(jax.jit(lambda x: x @ x.T).lower(x).compile())
    assert found.arguments == 8 * 16 * 4
    assert found.outputs == 8 * 8 * 4
    assert found.peak >= found.arguments + found.outputs
