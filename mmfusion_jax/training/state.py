"""The training state: all arrays that training changes."""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mmfusion_jax.ops.unrolled_threefry import unrolled
from mmfusion_jax.types import Array, Batch, Model, PyTree


class TrainState(struct.PyTreeNode):
    """All arrays that a run needs to resume bit-exactly.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.ConcatFC(
        ...     {"audio": mmf.encoders.Precomputed()}, 2, hidden_dims=(4,)
        ... )
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> sorted(state.variables)
        ['batch_stats', 'params']

    Attributes:
        step: Number of completed steps, () int32; also the position in the data.
        params: Parameters of the model.
        stats: Running statistics of BatchNorm; {} if there are none.
        opt_state: State of the optimizer.
        key: Base PRNG key of the run; every step folds in its number.
        skipped_steps: Number of steps skipped as non-finite, "consecutive" and
            "total", () each. "consecutive" stays at the limit of
            `make_train_step(max_nonfinite_steps=...)` once it is reached, and "total"
            then counts every step.
    """

    step: Array
    params: PyTree
    stats: PyTree
    opt_state: PyTree
    key: Array
    skipped_steps: dict[str, Array]

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables that `Model.apply` takes."""
        return {"params": self.params, "batch_stats": self.stats}


def create_state(
    model: Model, tx: optax.GradientTransformation, batch: Batch, key: Array
) -> TrainState:
    """Creates an initial state; pure, so it can be jitted with any sharding.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.ConcatFC(
        ...     {"audio": mmf.encoders.Precomputed()}, 2, hidden_dims=(4,)
        ... )
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> int(state.step), sorted(state.params)
        (0, ['head', 'hidden'])

    Args:
        model: Model to train.
        tx: Optimizer.
        batch: Any batch of the right shapes; its values are not used.
        key: Seeds the initialization and every later step.
    """
    # Split, so that dropout does not use the random numbers of the initialization.
    init_key, run_key = jax.random.split(key)
    # train=False needs no dropout key, and leaves BatchNorm's statistics at 0 and 1.
    variables = model.init(unrolled(init_key), batch, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        stats=variables.get("batch_stats", {}),
        opt_state=tx.init(variables["params"]),
        key=run_key,
        skipped_steps={
            "consecutive": jnp.zeros((), jnp.int32),
            "total": jnp.zeros((), jnp.int32),
        },
    )
