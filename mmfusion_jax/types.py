"""Shared data types: batches, tokens, outputs, and the interfaces of parts."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mmfusion_jax.errors import ConfigError, shown, suggest

Array: TypeAlias = jax.Array
PyTree: TypeAlias = Any


class Batch(struct.PyTreeNode):
    """Examples as a model sees them; every leaf has a leading axis b.

    A missing modality is not a special case: its mask is all False. To predict, a
    model needs inputs and masks only; losses and metrics also need their label.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(inputs={"audio": audio}, masks={"audio": mask})
        >>> batch.weight.shape, batch.has_modalities("audio").tolist()
        ((2,), [True, True])

    Attributes:
        inputs: Modality -> raw array, (b t ...).
        masks: Modality -> valid steps, (b t) bool.
        labels: Name -> target, (b) int class or (b) float score; {}, the default, for
            examples without labels.
        weight: (b) float; 0 for padding rows, else 1. None, the default, is replaced by
            ones: every row is an example.
        train_fraction: (b) float, completed fraction of the training, 0..1, the same in
            every row, for schedules inside a model; None outside training.
    """

    inputs: Mapping[str, Array]
    masks: Mapping[str, Array]
    labels: Mapping[str, Array] = struct.field(default_factory=dict)
    weight: Array = struct.field(default=None)
    train_fraction: Array | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:
            return
        # JAX also builds batches of other things than arrays, such as shardings.
        shapes = [x.shape for x in jax.tree.leaves(self.masks) if hasattr(x, "shape")]
        if shapes:
            weight = np.ones(shapes[0][:-1], np.float32)
            object.__setattr__(self, "weight", weight)

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

    def label(self, name: str) -> Array:
        """Returns `labels[name]`.

        Raises:
            ConfigError: The batch does not have this label; raised while tracing.
        """
        if name not in self.labels:
            raise ConfigError(
                "C07",
                f"a loss or metric requires label {shown(name)}, which the batch does "
                f"not have; {suggest(name, self.labels)}",
                "add it to Batch.labels; predictions do not need it",
            )
        return self.labels[name]


class Tokens(struct.PyTreeNode):
    """One modality as a masked sequence: what encoders return and fusion blocks map.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> mask = jnp.array([[True, True, False], [False, False, False]])
        >>> tokens = mmf.Tokens(jnp.ones((2, 3, 8)), mask)
        >>> tokens.present.tolist()
        [True, False]

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

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> outputs = mmf.Outputs(jnp.zeros((2, 7)), {"gate": jnp.ones((2, 3))})
        >>> outputs.prediction.shape, outputs.aux["gate"].shape
        ((2, 7), (2, 3))

    Attributes:
        prediction: (b k) logits, or (b) a score where the head has one output.
        aux: Name -> array that loss terms, metrics and `analysis` may read; every
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
