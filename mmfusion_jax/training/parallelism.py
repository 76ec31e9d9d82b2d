"""Runs a step on all devices: under jit on a mesh (the default), shard_map or pmap."""

import dataclasses
import functools
from collections.abc import Callable
from numbers import Integral
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.option_types import Parallel
from mmfusion_jax.types import Batch, PyTree

AXIS = "data"
PARALLEL = get_args(Parallel)


@dataclasses.dataclass(frozen=True)
class Executor:
    """Compiles steps for all devices and transfers batches to them.

    The state is replicated, the batch is split on its leading axis. Evaluation always
    runs under jit.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> executor = mmf.Executor("jit", devices=1)
        >>> executor.count, executor.axis
        (1, None)
        >>> mmf.Executor("shard_map", devices=1).axis
        'data'

    Attributes:
        parallel: "jit", "shard_map" or "pmap". With "jit" the compiler splits the step
            of the whole batch. With the others every device runs the step of its rows,
            and the step itself adds over `axis`.
        devices: Number of devices to use; 0 for all.
        topology: Devices to compile for instead of those of this process, such as
            `training.topology.Topology.devices`; () for those of this process.

    Raises:
        ConfigError: `parallel` is unknown, or there are not as many devices.
    """

    parallel: str = "jit"
    devices: int = 0
    topology: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.parallel not in PARALLEL:
            raise ConfigError(
                "C03",
                f"parallel={shown(self.parallel)} is unknown.",
                suggest(str(self.parallel), PARALLEL),
            )
        if not isinstance(self.devices, Integral) or self.devices < 0:
            raise ConfigError(
                "C10",
                f"devices={shown(self.devices)} is not a number of devices.",
                "a whole number, or 0 for all",
            )

    @property
    def count(self) -> int:
        return self.devices or len(self.topology) or jax.device_count()

    @property
    def axis(self) -> str | None:
        """Name of the axis that a step adds over; None under jit."""
        return None if self.parallel == "jit" else AXIS

    @property
    def mesh(self) -> jax.sharding.Mesh:
        # Auto: with the default, explicit axes, Linen's Dropout raises.
        devices = (self.topology or jax.devices())[: self.count]
        if len(devices) < self.count:
            raise ConfigError(
                "C10",
                f"devices={self.count:d}: JAX has {len(devices):d}.",
                "0 for all of them",
            )
        return jax.make_mesh(
            (self.count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
        )

    @property
    def replicated(self) -> NamedSharding:
        """Replicated on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def batch_sharding(self) -> NamedSharding:
        """Split across the devices on the leading axis."""
        return NamedSharding(self.mesh, P(AXIS))

    @property
    def seeds_sharding(self) -> NamedSharding:
        """Split across the devices on the second axis; the first is that of seeds."""
        return NamedSharding(self.mesh, P(None, AXIS))

    def compile(
        self, step: Callable[..., Any], *, seeds: bool = False, donate: bool = True
    ) -> Callable[..., Any]:
        """Compiles a training step made for `axis`, or another function of its kind.

        Args:
            step: The step of one seed.
            seeds: True to map the step over a leading axis of seeds, which the state,
                the batch and the results have.
            donate: Donate the state, which then cannot be used again.
        """
        if seeds:
            step = _over_seeds(step)
        if self.parallel == "pmap":
            return self._pmap(step, seeds, donate)
        split = self.seeds_sharding if seeds else self.batch_sharding
        if self.parallel == "shard_map":
            step = jax.shard_map(
                step,
                mesh=self.mesh,
                in_specs=(P(), split.spec),
                out_specs=P(),
                # As under pmap: with the check, the gradient of replicated parameters
                # is summed over the devices, which the step does itself.
                check_vma=False,
            )
        else:
            step = self._with_mesh(step)
        # XLA reuses the memory of the donated state for the new one; without donation
        # both exist at once.
        return jax.jit(
            step,
            in_shardings=(self.replicated, split),
            out_shardings=self.replicated,
            donate_argnums=0 if donate else (),
        )

    def _with_mesh(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a step that sees the mesh, to exchange arrays at once."""

        @functools.wraps(step)
        def in_context(*args: Any) -> Any:
            # Not `jax.set_mesh`, which cannot be used inside of jit.
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(*args)

        return in_context

    def _pmap(
        self, step: Callable[..., Any], seeds: bool, donate: bool
    ) -> Callable[..., Any]:
        """Compiles a training step under pmap."""
        is_alone = self.devices or jax.process_count() == 1
        # The state is passed with None instead of a stacked copy per device, and
        # returned as one replicated array, which a checkpoint stores like that of jit.
        return jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 1 if seeds else 0),  # pyright: ignore[reportArgumentType]
            out_axes=None,  # pyright: ignore[reportArgumentType]
            # In the order of the mesh, in which `put` places the rows.
            devices=list(self.mesh.devices.flat) if is_alone else None,
            # Before JAX 0.8, pmap could donate only what it maps over.
            donate_argnums=0 if donate and not _is_before_0_8() else (),
        )

    def compile_eval(
        self, step: Callable[[PyTree, Batch], PyTree], *, seeds: bool = False
    ):
        """Compiles an evaluation step under jit; its sums are global.

        Args:
            step: The step of one seed.
            seeds: True to map the step over a leading axis of seeds, which the
                variables and the results have; the batch and the prior are the same
                for all.
        """
        if seeds:
            plain, stacked = step, {"params": 0, "batch_stats": 0, "prior": None}
            step = jax.vmap(plain, in_axes=(stacked, None))
        return jax.jit(
            step,
            in_shardings=(self.replicated, self.batch_sharding),
            out_shardings=self.replicated,
        )

    def compile_init(self, init: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Compiles `init` so that its result is replicated."""
        # Not device_put of an existing tree: it may return the same buffers, and
        # donating them later deletes the source.
        return jax.jit(init, out_shardings=self.replicated)

    def create(self, init: Callable[[], PyTree]) -> PyTree:
        """Runs `init` so that its result is replicated."""
        return self.compile_init(init)()

    def copy(self, tree: PyTree) -> PyTree:
        """Copies arrays to every device, so that a step may donate them."""
        # jit with a copy, because `jax.device_put` returns an alias even with
        # may_alias=False (JAX 0.10), and the first step, which donates its state, would
        # delete the source.
        fresh = lambda tree: jax.tree.map(jnp.copy, tree)
        return jax.jit(fresh, out_shardings=self.replicated)(tree)

    def abstract(self, init: Callable[[], PyTree]) -> PyTree:
        """Returns shapes, types and shardings of the result of `init`."""
        describe = lambda s: jax.ShapeDtypeStruct(
            s.shape, s.dtype, sharding=self.replicated
        )
        return jax.tree.map(describe, jax.eval_shape(init))

    def put(self, batch: Batch, *, train: bool, seeds: bool = False) -> Batch:
        """Transfers this process's rows of a batch to the devices.

        Args:
            batch: NumPy leaves, (local rows ...).
            train: True for the training step, where pmap takes an axis of devices.
            seeds: True for leaves with a leading axis of seeds.
        """
        split = self.seeds_sharding if seeds else self.batch_sharding
        if train and self.parallel == "pmap":
            # pmap maps over an axis of the devices of this process.
            devices = self.mesh.local_mesh
            axis = 1 if seeds else 0
            rows = lambda x: x.reshape(
                *x.shape[:axis], devices.size, -1, *x.shape[axis + 1 :]
            )
            split = NamedSharding(devices, split.spec)
            return jax.device_put(jax.tree.map(rows, batch), split)
        # Every process has only its rows; the global array is their concatenation.
        transfer: Callable[[Any], jax.Array] = lambda x: (
            jax.make_array_from_process_local_data(split, x)
        )
        return jax.tree.map(transfer, batch)

    def check_batch_size(
        self, batch_size: int, gradient_accumulation_steps: int = 1
    ) -> None:
        """Raises ConfigError if a batch cannot be split evenly."""
        parts = self.count * gradient_accumulation_steps
        if batch_size % parts:
            below = max(batch_size - batch_size % parts, parts)
            raise ConfigError(
                "C05",
                f"config.data.batch_size={batch_size:d} cannot be split across "
                f"{self.count} devices and gradient_accumulation_steps="
                f"{gradient_accumulation_steps:d}.",
                f"--config.data.batch_size={below:d} (a multiple of {parts})",
            )


def _over_seeds(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a training step with a leading axis of seeds."""
    # JAX before 0.8 cannot vmap the gradient of a convolution of arrays on a mesh: it
    # raises NotImplementedError. There the seeds run one after the other.
    if _is_before_0_8():
        return lambda state, batch: jax.lax.map(lambda one: step(*one), (state, batch))
    return jax.vmap(step)


def _is_before_0_8() -> bool:
    """Returns whether this JAX is older than 0.8, whose pmap and vmap did less."""
    return jax.__version_info__ < (0, 8)
