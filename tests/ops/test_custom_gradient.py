"""Backward passes by hand under JAX's transformations, against its own derivatives."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from precision import double

from mmfusion_jax.analysis.cost import count_macs, find_products
from mmfusion_jax.ops.custom_gradient import with_backward

MASK = np.array([[1], [1], [0]], np.int32)
CALLS = []


def definition(x, w, mask):
    return {"y": jnp.sin(x @ w) * mask, "rows": jnp.sum(mask)}


def backward(arguments, saved, dy):
    CALLS.append("backward")
    x, w, mask = arguments
    (cosine,) = saved
    d = dy["y"] * cosine * mask
    return d @ w.T, x.T @ d, None


def forward(x, w, mask):
    CALLS.append("forward")
    return definition(x, w, mask), (jnp.cos(x @ w),)


by_hand = with_backward(definition, backward, forward)


def loss(function, x, w):
    return jnp.sum(jnp.exp(function(x, w, MASK)["y"]))


def looped(f, x, w):
    add = lambda total, x: (total + f(x + total, w), None)
    return jax.lax.scan(add, 0.1, jnp.stack([x, 2 * x]))[0]


def over_two(f, x, w):
    return jnp.sum(jax.vmap(f, (2, None))(jnp.stack([x, 2 * x], axis=2), w))


BOTH = (0, 1)
TRANSFORMATIONS = {
    "gradient": lambda f: jax.grad(f, BOTH),
    "gradient of one": lambda f: jax.grad(f, 1),
    "tangent": lambda f: lambda x, w: jax.jvp(f, (x, w), (2 * x, w)),
    "tangent of one": lambda f: lambda x, w: jax.jvp(lambda w: f(x, w), (w,), (w,)),
    "linearized": lambda f: lambda x, w: jax.linearize(f, x, w)[1](x, w),
    "jacfwd": lambda f: jax.jacfwd(f, BOTH),
    "hessian": lambda f: jax.hessian(f, BOTH),
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f, BOTH), BOTH),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f, BOTH), BOTH),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f, BOTH), BOTH),
    "third order": lambda f: jax.jacfwd(jax.jacrev(jax.jacrev(f, 1), 1), 1),
    "hessian of jit": lambda f: jax.hessian(jax.jit(f), BOTH),
    "jit of the gradient": lambda f: jax.jacrev(jax.jit(jax.grad(f, BOTH)), BOTH),
    "checkpoint": lambda f: jax.hessian(jax.checkpoint(f), BOTH),
    "scan": lambda f: jax.hessian(functools.partial(looped, f), BOTH),
    "scan in a checkpoint": lambda f: jax.jacrev(
        jax.grad(jax.checkpoint(functools.partial(looped, f)), 1), 1
    ),
    "vmap inside": lambda f: jax.hessian(functools.partial(over_two, f), BOTH),
    "vmap inside, gradient of one": lambda f: jax.grad(
        functools.partial(over_two, f), 1
    ),
    "vmap outside": lambda f: (
        lambda x, w: jax.vmap(jax.grad(f, BOTH), (0, None))(jnp.stack([x, 2 * x]), w)
    ),
    "pmap": lambda f: (
        lambda x, w: jax.pmap(jax.hessian(f, BOTH), in_axes=(0, None))(
            jnp.stack([x, 2 * x]), w
        )
    ),
}


def compare(transformation, *, compiled):
    """Asserts that both functions have the same derivatives."""
    rng = np.random.default_rng(0)
    with double():
        x, w = (
            jnp.asarray(rng.normal(size=(3, 4))),
            jnp.asarray(rng.normal(size=(4, 2))),
        )
        run = jax.jit if compiled else lambda f: f
        got, want = (
            run(transformation(functools.partial(loss, f)))(x, w)
            for f in (by_hand, definition)
        )
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["gradient", "tangent", "hessian"])
def test_derivatives(name):
    compare(TRANSFORMATIONS[name], compiled=True)


@pytest.mark.ci
@pytest.mark.versions
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations(name):
    compare(TRANSFORMATIONS[name], compiled=name != "pmap")


@pytest.mark.ci
@pytest.mark.versions
@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map(check_vma, outside):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("data"), PartitionSpec()
    over = functools.partial(jax.shard_map, mesh=mesh, check_vma=check_vma)

    def transformation(f):
        total = lambda x, w: jax.lax.psum(f(x[0], w), "data")
        if outside:
            function = over(total, in_specs=(split, whole), out_specs=whole)
            derived = jax.hessian(function, BOTH)
        else:
            own = lambda x, w: jax.hessian(lambda x, w: f(x[0], w), BOTH)(x, w)
            wide = lambda x, w: jax.tree.map(lambda a: a[None], own(x, w))
            derived = over(wide, in_specs=(split, whole), out_specs=split)
        return lambda x, w: derived(jnp.stack([x, 2 * x]), w)

    compare(transformation, compiled=True)


def test_a_gradient_is_that_of_the_backward_pass_and_nothing_else_is():
    x, w = jnp.ones((3, 4)), jnp.ones((4, 2))
    for transformation, want in {
        jax.grad: ["forward", "backward"],
        jax.jacfwd: ["forward"],
    }.items():
        CALLS.clear()
        transformation(functools.partial(loss, by_hand))(x, w)
        assert want == CALLS


def test_what_the_forward_pass_saves_needs_no_derivative():
    saved_without = lambda x: (x**3, jax.pure_callback(np.asarray, x, x))
    cube = with_backward(
        lambda x: x**3, lambda x, same, dy: (3 * same**2 * dy,), saved_without
    )
    two = jnp.float32(2)
    assert jax.grad(cube)(two) == 12
    assert jax.hessian(cube)(two) == jax.grad(jax.grad(cube))(two) == 12


def test_a_gradient_of_the_wrong_shape_is_an_error():
    double_of = with_backward(lambda x: 2 * x, lambda x, saved, dy: (jnp.sum(dy),))
    with pytest.raises(TypeError, match=r"gradient of shape \(\) .* shape \(3,\)"):
        jax.grad(lambda x: jnp.sum(double_of(x)))(jnp.ones(3))


@pytest.mark.versions
def test_an_exported_gradient_is_the_same():
    gradient = jax.jit(jax.grad(functools.partial(loss, by_hand), BOTH))
    x, w = jnp.ones((3, 4)), jnp.ones((4, 2))
    stored = jax.export.export(gradient)(x, w).serialize()
    got = jax.export.deserialize(bytearray(stored)).call(x, w)
    jax.tree.map(np.testing.assert_array_equal, got, gradient(x, w))


PRODUCT = with_backward(
    jnp.matmul, lambda arguments, _, dy: (dy @ arguments[1].T, arguments[0].T @ dy)
)


def highest_product_squared(x):
    with jax.default_matmul_precision("highest"):
        return jnp.sum(PRODUCT(x, x) ** 2)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize(
    "derivative, count",
    [(jax.grad, 3), (jax.hessian, 8), (lambda f: jax.jacrev(jax.grad(f)), 8)],
)
def test_products_keep_the_precision_of_the_call(derivative, count, jitted):
    """Also where the derivative is traced after the context has ended."""
    loss = jax.jit(highest_product_squared) if jitted else highest_product_squared
    jaxpr = jax.make_jaxpr(derivative(loss))(jnp.ones((2, 2))).jaxpr
    found = [product.precision for product in find_products(jaxpr)]
    assert len(found) >= count and {*found} == {"highest"}


def test_products_of_a_backward_pass_are_counted():
    """Forward x w, backward dy w^T and x^T dy: three of 2 x 3 x 4."""
    loss = lambda x, w: jnp.sum(PRODUCT(x, w) ** 2)
    gradient = jax.grad(loss, (0, 1))
    assert count_macs(gradient, jnp.ones((2, 3)), jnp.ones((3, 4))).total == 3 * 24
