"""Shared data types: batches, tokens, outputs, and the interfaces of parts."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

Array: TypeAlias = jax.Array
PyTree: TypeAlias = Any


class Batch(struct.PyTreeNode):
    """Examples as a model sees them; every leaf has a leading axis b.

    A missing modality is not a special case: its mask is all False.

    Attributes:
        inputs: Modality -> raw array, (b t ...).
        masks: Modality -> valid steps, (b t) bool.
        labels: Name -> target, (b) int class or (b) float score.
        weight: (b) float; 0 for padding rows, else 1.
        train_fraction: (b) float, completed fraction of the training, 0..1, the same in
            every row, for schedules inside a model; None outside training.
    """

    inputs: Mapping[str, Array]
    masks: Mapping[str, Array]
    labels: Mapping[str, Array]
    weight: Array
    train_fraction: Array | None = None

    def has_modalities(self, *modalities: str) -> Array:
        """Returns the valid examples that have all of `modalities`, (b) bool."""
        present = [jnp.any(self.masks[name], axis=-1) for name in modalities]
        return jnp.all(jnp.stack([self.weight > 0, *present]), axis=0)

    def has_any_modality(self, *modalities: str) -> Array:
        """Returns the valid examples that have any of `modalities`, (b) bool."""
        return jnp.any(
            jnp.stack([self.has_modalities(name) for name in modalities]), axis=0
        )

    def valid_mask(self, modality: str) -> Array:
        """Returns the mask of `modality` without padding rows, (b t) bool."""
        return self.masks[modality] & (self.weight > 0)[:, None]


class Tokens(struct.PyTreeNode):
    """One modality as a masked sequence: what encoders return and fusion blocks map.

    Attributes:
        values: (b n d) float; a clip is flattened to n positions.
        mask: (b n) bool; False marks padding or a missing modality.
        grid: Sizes of the axes that n was flattened from, such as (s, h, w); () for a
            plain sequence.
    """

    values: Array
    mask: Array
    # Static: a shape that reshape uses must be known while tracing.
    grid: tuple[int, ...] = struct.field(pytree_node=False, default=())

    @property
    def present(self) -> Array:
        """Examples that have this modality, (b) bool."""
        return jnp.any(self.mask, axis=-1)


WEIGHT_PREFIX = "weight/"
"""Prefix of the auxiliary outputs that are modality weights, (b) each, sum 1."""


AUX = "aux"
"""Collection of variables in which an encoder stores auxiliary outputs: `self.sow(AUX,
name, value)`. An encoder that does has the class attribute `has_aux = True`."""


class Outputs(struct.PyTreeNode):
    """The outputs of a model.

    Attributes:
        prediction: (b k) logits, or (b) a score where the head has one output.
        aux: Name -> array that loss terms, metrics and analyses may read; every
            array has a leading axis b.
    """

    prediction: Array
    aux: Mapping[str, Array] = struct.field(default_factory=dict)


class Model(Protocol):
    """A pair of pure functions; a Linen module is one."""

    def init(self, key: Any, batch: Batch, /, *, train: bool) -> PyTree:
        """Creates the variables: "params", and "batch_stats" if there are any."""
        ...

    def apply(self, variables: PyTree, batch: Batch, /, **kwargs: Any) -> Any:
        """Maps a Batch to Outputs; with `mutable`, also the updated variables."""
        ...


Streams: TypeAlias = Mapping[str, Tokens]
LossTerm: TypeAlias = Callable[[Outputs, Batch], Array]
