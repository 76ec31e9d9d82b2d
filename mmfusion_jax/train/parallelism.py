"""Where a step runs: a mesh under jit (the default), or pmap. The maths is the same."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.train.step import Step
from mmfusion_jax.types import Batch, PyTree

AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Executor:
    """Compiles steps for all devices and brings batches to them.

    The state is replicated, the batch is split on its leading axis. Evaluation always
    runs under jit.

    Attributes:
        parallel: "jit" or "pmap".
        devices: how many to use; 0 for all of them.
    """

    parallel: str = "jit"
    devices: int = 0

    @property
    def count(self) -> int:
        return self.devices or jax.device_count()

    @property
    def axis(self) -> str | None:
        """The axis a step must be made for; None under jit."""
        return AXIS if self.parallel == "pmap" else None

    @property
    def mesh(self) -> jax.sharding.Mesh:
        # Auto: with the default, explicit axes, Linen's Dropout raises.
        devices = jax.devices()[: self.count]
        return jax.make_mesh(
            (self.count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
        )

    @property
    def whole(self) -> NamedSharding:
        """Replicated on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def split(self) -> NamedSharding:
        """Split over the devices on the leading axis."""
        return NamedSharding(self.mesh, P(AXIS))

    def compile(self, step: Step) -> Step:
        """`step`, made for `axis`, on all devices; the state is donated."""
        if self.parallel == "jit":
            return jax.jit(
                step,
                in_shardings=(self.whole, self.split),
                out_shardings=(self.whole, self.whole),
                donate_argnums=0,
            )
        mapped = jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 0),  # pyright: ignore[reportArgumentType]
            out_axes=(None, None),  # pyright: ignore[reportArgumentType]
            devices=jax.devices()[: self.count] if self.devices else None,
        )
        local = self.devices or jax.local_device_count()
        rows = lambda x: x.reshape(local, -1, *x.shape[1:])
        return lambda state, batch: mapped(state, jax.tree.map(rows, batch))

    def compile_eval(self, step: Callable[[PyTree, Batch], PyTree]):
        """`step` under jit on all devices; its sums are global."""
        return jax.jit(
            step, in_shardings=(self.whole, self.split), out_shardings=self.whole
        )

    def compile_init(self, init: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """`init`, compiled so that its result lies on every device."""
        return jax.jit(init, out_shardings=self.whole)

    def create(self, init: Callable[[], PyTree]) -> PyTree:
        """Runs `init` so that its result lies on every device."""
        return self.compile_init(init)()

    def copy(self, tree: PyTree) -> PyTree:
        """Arrays of their own on every device, so that a step may donate them."""
        fresh = lambda tree: jax.tree.map(jnp.copy, tree)
        return jax.jit(fresh, out_shardings=self.whole)(tree)

    def abstract(self, init: Callable[[], PyTree]) -> PyTree:
        """Shapes, types and shardings of what `init` would create."""
        describe = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=self.whole)
        return jax.tree.map(describe, jax.eval_shape(init))

    def put(self, batch: Batch, *, train: bool) -> Batch:
        """Brings this process's rows of a batch to the devices.

        Args:
            batch: NumPy leaves, (local rows ...).
            train: for the training step; pmap then takes host arrays as they are.
        """
        if train and self.parallel == "pmap":
            return batch
        place: Callable[[Any], jax.Array] = lambda x: (
            jax.make_array_from_process_local_data(self.split, x)
        )
        return jax.tree.map(place, batch)

    def check_batch_size(self, batch_size: int, accumulate: int = 1) -> None:
        """Raises ConfigError if a batch cannot be split evenly."""
        parts = self.count * accumulate
        if batch_size % parts:
            below = max(batch_size - batch_size % parts, parts)
            raise ConfigError(
                "C05",
                f"config.data.batch_size={batch_size} cannot be split over "
                f"{self.count} devices and accumulate={accumulate}.",
                f"--config.data.batch_size={below} (a multiple of {parts})",
            )
