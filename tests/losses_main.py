"""Every loss term on 1, 2 and 8 devices under jit and pmap; prints what differs.

A process of its own, because the number of devices and the precision are fixed when
JAX starts.
"""

import json

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import loss_terms  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

from mmfusion_jax.losses.objective import Objective, Weighted  # noqa: E402

OBJECTIVES = {
    name: Objective({"task": Weighted(term)}) for name, term in loss_terms.TERMS.items()
}


def params():
    """One matrix for every array that a term reads, so that gradients stay apart."""
    rng = np.random.default_rng(2)
    return {k: rng.normal(size=(6, d)) for k, d in loss_terms.widths().items()}


def batch():
    """The batch in double precision."""
    small = loss_terms.batch()
    cast = lambda x: x.astype(np.float64) if x.dtype == np.float32 else x
    return jax.tree.map(cast, small)


def values_and_gradients(params, batch, axis=None):
    """Loss and gradient of every term, as a training step computes them."""

    def loss(params, name):
        arrays = {k: jnp.tanh(batch.inputs["noise"] @ w) for k, w in params.items()}
        outputs = loss_terms.outputs(arrays, batch, name)
        return OBJECTIVES[name](outputs, batch, jnp.array(0), axis)[1]["task"]

    found = {name: jax.value_and_grad(loss)(params, name) for name in OBJECTIVES}
    return found if axis is None else jax.lax.pmean(found, axis)


def under_jit(devices: int):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    run = jax.jit(values_and_gradients, in_shardings=(whole, split))
    return jax.device_get(run(params(), batch()))


def under_pmap(devices: int):
    run = jax.pmap(
        lambda p, b: values_and_gradients(p, b, "data"),
        axis_name="data",
        in_axes=(None, 0),
        devices=jax.devices()[:devices],
    )
    shares = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch())
    return jax.tree.map(lambda x: x[-1], jax.device_get(run(params(), shares)))


def distance(a, b) -> float:
    """Largest difference of any leaf, relative to that leaf's largest value."""
    leaf = lambda x, y: np.abs(x - y).max() / max(np.abs(y).max(), 1e-2)
    return float(max(jax.tree.leaves(jax.tree.map(leaf, a, b))))


def main() -> None:
    one = under_jit(1)
    found = {f"jit{n}": distance(under_jit(n), one) for n in (2, 8)}
    found |= {f"pmap{n}": distance(under_pmap(n), one) for n in (2, 8)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
