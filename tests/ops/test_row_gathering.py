"""Rows of two devices are gathered at once, exactly, and with their gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmfusion_jax.ops.context_mesh import context_devices
from mmfusion_jax.ops.row_gathering import gather_rows
from mmfusion_jax.training.parallelism import Executor

EXECUTOR = Executor("jit", devices=2)
WHOLE, SPLIT = P(), P("data")
TREE = {
    "float32": np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 3, 2),
    "bfloat16": np.arange(4, dtype=np.float32).astype(jnp.bfloat16),
    "bool": np.array([[True], [False], [True], [True]]),
    "int32": np.array([7, 2**24 + 1, -1, 0], np.int32),
    "empty": np.zeros((4, 0), np.float32),
}


def over_devices(function, out_specs=WHOLE):
    return jax.shard_map(
        function,
        mesh=EXECUTOR.mesh,
        in_specs=SPLIT,
        out_specs=out_specs,
        check_vma=False,
    )


GATHERS = {
    "jit": gather_rows,
    "shard_map": over_devices(lambda tree: gather_rows(tree, axis="data")),
}


@pytest.mark.parametrize("how", GATHERS)
def test_two_collectives_gather_everything(how):
    tree = jax.device_put(TREE, EXECUTOR.batch_sharding)
    with jax.set_mesh(EXECUTOR.mesh):
        program = jax.jit(GATHERS[how]).lower(tree).compile()
    found = program(tree)
    for name, want in TREE.items():
        assert found[name].dtype == want.dtype
        assert found[name].sharding.is_fully_replicated
        np.testing.assert_array_equal(found[name], want)
    gathers = re.findall(r" (?:all-gather|all-reduce)(?:-start)?\(", program.as_text())
    assert len(gathers) <= 2


@pytest.mark.parametrize(("parallel", "want"), [("jit", 2), ("shard_map", 1)])
def test_a_compiled_step_sees_the_mesh(parallel, want):
    """That its rows are split; with shard_map it has those of one device only."""
    executor, seen = Executor(parallel, devices=2), []

    def step(state, batch):
        seen.append(context_devices())
        return jnp.sum(state)

    executor.compile(step, donate=False)(jnp.ones(2), jnp.ones(2))
    assert seen == [want]
    assert context_devices() == 1


def test_a_gradient_is_summed_over_the_devices():
    """Device k weighs the rows of both devices with k + 1."""

    def gradient(x):
        loss = lambda x: jnp.sum(jnp.square(gather_rows([x], axis="data")[0]))
        return jax.grad(lambda x: (jax.lax.axis_index("data") + 1) * loss(x))(x)

    x = TREE["float32"]
    found = over_devices(gradient, SPLIT)(x)
    np.testing.assert_allclose(found, 3 * 2 * x, rtol=1e-6)


def test_without_other_devices_nothing_changes():
    assert jax.tree.all(jax.tree.map(np.array_equal, gather_rows(TREE), TREE))
