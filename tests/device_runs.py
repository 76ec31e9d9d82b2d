"""The same loss and gradient on 1, 2 and 8 devices under jit, pmap and shard_map.

To be imported first, in a process of its own, because the number of devices and the
precision are fixed when JAX starts.
"""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

COUNTS = (2, 8)


def under_jit(f, params, batch, devices: int):
    """`f(params, batch)` with the batch split over a mesh; its program as text."""
    whole, split = shardings(devices)
    put = lambda tree, where: jax.tree.map(lambda x: jax.device_put(x, where), tree)
    params, batch = put(params, whole), put(batch, split)
    with jax.set_mesh(whole.mesh):
        program = jax.jit(f).lower(params, batch).compile()
    return jax.device_get(program(params, batch)), program.as_text()


def shardings(devices: int) -> tuple[NamedSharding, NamedSharding]:
    """Replicated on every device of a mesh, and split over them."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(
        mesh, PartitionSpec("data")
    )


def under_shard_map(f, params, batch, devices: int):
    """`f(params, batch, axis)` averaged over devices, as a training step does it."""
    whole, split = shardings(devices)
    run = jax.shard_map(
        lambda p, b: jax.lax.pmean(f(p, b, "data"), "data"),
        mesh=whole.mesh,
        in_specs=(whole.spec, split.spec),
        out_specs=whole.spec,
        check_vma=False,
    )
    return jax.device_get(jax.jit(run)(params, batch))


def under_pmap(f, params, batch, devices: int):
    """`f(params, batch, axis)` averaged over devices, as a training step does it."""
    run = jax.pmap(
        lambda p, b: jax.lax.pmean(f(p, b, "data"), "data"),
        axis_name="data",
        in_axes=(None, 0),
        devices=jax.devices()[:devices],
    )
    shares = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    return jax.tree.map(lambda x: x[-1], jax.device_get(run(params, shares)))


def double(tree):
    """Every float of a tree in double precision, on the host."""
    cast = lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x
    return jax.tree.map(cast, tree)


def distance(a, b) -> float:
    """Largest difference of any leaf, relative to that leaf's largest value."""
    leaf = lambda x, y: np.abs(x - y).max() / max(np.abs(y).max(), 1e-2)
    return float(max(jax.tree.leaves(jax.tree.map(leaf, a, b))))


def differences(
    f, params, batch, counts: tuple[int, ...] = COUNTS
) -> tuple[dict[str, float], str]:
    """Differences of executors from one device; the program of the first count."""
    one, _ = under_jit(f, params, batch, 1)
    found, programs = {}, {}
    for n in counts:
        result, programs[n] = under_jit(f, params, batch, n)
        found[f"jit{n}"] = distance(result, one)
        found[f"pmap{n}"] = distance(under_pmap(f, params, batch, n), one)
        found[f"shard_map{n}"] = distance(under_shard_map(f, params, batch, n), one)
    return found, programs[counts[0]]
