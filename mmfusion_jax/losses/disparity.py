"""Losses that separate exclusive from agnostic features (MEA)."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from mmfusion_jax.losses.model_outputs import model_output
from mmfusion_jax.ops.independence import hsic, squared_cross_correlation
from mmfusion_jax.option_types import Modalities
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class HSICDisparity:
    """Dependence of exclusive and agnostic features, measured by HSIC.

        L_dis = 1/M sum_m HSIC(h^e_m, h^a_m)                      (MEA, Eq. 13-14)

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> batch = mmf.Batch({}, {"audio": jnp.ones((2, 5), bool)})
        >>> outputs = mmf.Outputs(
        ...     x, {"exclusive/audio": x, "agnostic/audio": x[:, ::-1]}
        ... )
        >>> round(float(mmf.losses.HSICDisparity(("audio",))(outputs, batch)), 2)
        4.0

    Attributes:
        modalities: Names; each has `Outputs.aux["exclusive/<m>"]` (b d) and
            `["agnostic/<m>"]` (b e).

    Reference:
        MEA, Eq. 13-14.
    Deviation:
        The text has pairs of modalities, Eq. 14 pairs the two features of one modality,
        as here. A modality present in fewer than two rows is excluded from the mean.
    """

    modalities: Modalities

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return _mean(hsic, self.modalities, outputs, batch)


@dataclasses.dataclass(frozen=True)
class DifferenceLoss:
    """Difference loss of MISA between exclusive and agnostic features.

        L_sep = 1/M sum_m mean((H^e_m^T H^a_m)^2)

    The columns of H are centered, then its rows are normalized to length 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> batch = mmf.Batch({}, {"audio": jnp.ones((2, 5), bool)})
        >>> outputs = mmf.Outputs(
        ...     x, {"exclusive/audio": x, "agnostic/audio": x[:, ::-1]}
        ... )
        >>> round(float(mmf.losses.DifferenceLoss(("audio",))(outputs, batch)), 2)
        1.0

    Attributes:
        modalities: See `HSICDisparity`.

    Reference:
        MEA, Table V, "w/ Separation Constraint", which cites domain separation networks
        (Bousmalis et al. 2016); their difference loss in the form of MISA (Hazarika et
        al. 2020).
    Deviation:
        The mean over the entries of the product, with constant norms, as in MISA's
        code; its paper has a sum.
    """

    modalities: Modalities

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return _mean(squared_cross_correlation, self.modalities, outputs, batch)


def _mean(
    dependence: Callable[[Array, Array, Array], Array],
    modalities: tuple[str, ...],
    outputs: Outputs,
    batch: Batch,
) -> Array:
    """Mean dependence over the modalities present in at least two rows, ()."""
    values, counted = [], []
    for name in modalities:
        # HSIC compares examples, so it is one number per modality, over the rows that
        # have it.
        rows = batch.has_modalities(name)
        exclusive = model_output(outputs, f"exclusive/{name}")
        values.append(
            dependence(exclusive, model_output(outputs, f"agnostic/{name}"), rows)
        )
        counted.append(jnp.sum(rows, dtype=jnp.int32) > 1)
    count = jnp.sum(jnp.stack(counted), dtype=jnp.int32)
    return jnp.sum(jnp.stack(values)) / jnp.maximum(count, 1)
