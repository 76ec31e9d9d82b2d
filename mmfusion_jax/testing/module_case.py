"""An encoder, fusion block or model with inputs, and the programs that run it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.testing.compare import to_numpy
from mmfusion_jax.testing.inputs import is_float
from mmfusion_jax.types import AUX, Array, PyTree, Streams


class Measured(NamedTuple):
    """What a training step of a part computes.

    Attributes:
        outputs: Name -> Tokens.
        stats: Updated batch statistics.
        params: Gradient with respect to the parameters.
        inputs: Name -> gradient with respect to float values.
    """

    outputs: Any
    stats: PyTree
    params: PyTree
    inputs: PyTree


@dataclasses.dataclass
class ModuleCase:
    """A module with everything that its properties need.

    Attributes:
        module: A Linen module.
        streams: A batch of inputs, name -> Tokens with NumPy leaves.
        arguments: Streams -> positional arguments of the module.
        outputs: Result of the module and its auxiliary outputs -> name -> Tokens.
        kind: "encoder", "fusion" or "model".
        batch_statistics: Training compares the examples of a batch.
        positional: A result depends on the number of the position.
        fixed_length: The number of positions is the same in every batch.
        extra: Number of padded steps that are added; 0 for half as many as there are.
        tolerance: Allowed difference of two programs, relative to the largest value.
        low_precision_tolerance: The same for bfloat16 against float32.
        key: The random key of most runs.
    """

    module: Any
    streams: Streams
    arguments: Callable[[Any], tuple]
    outputs: Callable[[Any, Any], dict]
    kind: str
    batch_statistics: bool = False
    positional: bool = True
    fixed_length: bool = False
    extra: int = 0
    tolerance: float = 1e-4
    low_precision_tolerance: float = 0.1
    # Not a cached property: it would be created, and stay, inside the first trace.
    key: Any = dataclasses.field(default_factory=lambda: jax.random.key(0))

    def apply(
        self, variables: Any, streams: Any, key: Any, *, train: bool, module: Any = None
    ) -> tuple[dict, PyTree]:
        """Returns the outputs and the updated batch statistics."""
        module = self.module if module is None else module
        result, updated = module.apply(
            variables,
            *self.arguments(streams),
            train=train,
            rngs={"dropout": key} if train else {},
            mutable=["batch_stats", AUX],
        )
        outputs = self.outputs(result, updated.get(AUX, {}))
        return outputs, updated.get("batch_stats", {})

    def init(self, key: Any, streams: Any) -> dict[str, PyTree]:
        """Returns new variables, without auxiliary outputs."""
        variables = self.module.init(key, *self.arguments(streams), train=False)
        return {k: v for k, v in variables.items() if k not in (AUX, "intermediates")}

    @functools.cached_property
    def initial(self) -> Any:
        """The compiled `init`."""
        return jax.jit(self.init)

    @functools.cached_property
    def variables(self) -> Any:
        """Variables none of which is 0 or 1 everywhere, NumPy leaves."""
        rng = np.random.default_rng(0)
        change = lambda x: (
            x + 0.1 * rng.random(x.shape).astype(x.dtype) if is_float(x) else x
        )
        return jax.tree.map(change, jax.device_get(self.initial(self.key, self.zeroed)))

    @functools.cached_property
    def zeroed(self) -> Streams:
        """The inputs with 0 where they are masked."""
        clean = lambda x: np.where(
            x.mask.reshape(*x.mask.shape, *[1] * (x.values.ndim - 2)), x.values, 0
        ).astype(x.values.dtype)
        return {k: x.replace(values=clean(x)) for k, x in self.streams.items()}

    @property
    def rows(self) -> int:
        """Number of examples of the batch."""
        return len(next(iter(self.streams.values())).mask)

    @functools.cached_property
    def has_statistics(self) -> bool:
        """Whether training compares examples or updates batch statistics."""
        return self.batch_statistics or bool(self.variables.get("batch_stats"))

    @functools.cached_property
    def training(self) -> Callable[..., Measured]:
        """The compiled training program of variables, streams and key."""
        return jax.jit(self.measure)

    def measure(self, variables: Any, streams: Any, key: Any) -> Measured:
        """Computes the outputs, statistics and gradients of a training step."""
        rest = {k: v for k, v in variables.items() if k != "params"}
        floats = {k: x.values for k, x in streams.items() if is_float(x.values)}

        def total(params: Any, values: Any) -> tuple[Array, Any]:
            inputs = {
                k: x.replace(values=values.get(k, x.values)) for k, x in streams.items()
            }
            outputs, stats = self.apply(
                {**rest, "params": params}, inputs, key, train=True
            )
            return score(outputs), (outputs, stats)

        slope = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
        (_, (outputs, stats)), grads = slope(variables.get("params", {}), floats)
        return Measured(outputs, stats, *grads)

    @functools.cached_property
    def evaluation(self) -> Callable[..., Any]:
        """The compiled program of variables and streams for `train=False`."""
        return jax.jit(functools.partial(self.apply, key=None, train=False))

    def train(self, streams: Streams, key: Any = None) -> Measured:
        """Runs a training step, NumPy leaves."""
        key = self.key if key is None else key
        return to_numpy(self.training(self.variables, streams, key))

    def predict(self, streams: Streams) -> dict:
        """Returns the outputs for `train=False`, NumPy leaves."""
        return to_numpy(self.evaluation(self.variables, streams))[0]

    @functools.cached_property
    def trained(self) -> Measured:
        """The training step of the inputs."""
        return self.train(self.zeroed)

    @functools.cached_property
    def predicted(self) -> dict:
        """The outputs of the inputs."""
        return self.predict(self.zeroed)

    @functools.cached_property
    def is_random(self) -> bool:
        """Whether training depends on the key."""
        other = self.train(self.zeroed, jax.random.key(1))
        same = [
            np.array_equal(x, y)
            for x, y in zip(
                jax.tree.leaves(self.trained), jax.tree.leaves(other), strict=True
            )
        ]
        return not all(same)


def score(outputs: Any) -> Array:
    """A scalar that reads every valid value of the outputs, each with its weight."""
    total = jnp.zeros((), jnp.float32)
    for name in sorted(outputs):
        values = zero_masked(outputs[name].values, outputs[name].mask)
        if is_float(values):
            # Linear, so that its own gradient does not overflow.
            weights = jnp.cos(jnp.arange(values.size, dtype=jnp.float32))
            weights = weights.reshape(values.shape)
            total = total + jnp.sum(values.astype(jnp.float32) * weights)
    return total
