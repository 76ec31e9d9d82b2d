"""Gate entropy regularizer (Hetero-Fusion-Net)."""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from mmfusion_jax.losses.candidates import EXAMPLE
from mmfusion_jax.losses.model_outputs import check_choice, model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Name
from mmfusion_jax.types import Array, Batch, Outputs

FORMS = ("normalized", "paper")
TINY = 1e-8


@dataclasses.dataclass(frozen=True)
class GateEntropy:
    """Negative entropy of the modality gates, in nats.

        L = sum_m p_m ln p_m,  p = g / sum g                 form="normalized"
        L = -sum_m g_m ln g_m                                form="paper"     (5)

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> batch = mmf.Batch({}, {"audio": jnp.ones((2, 5), bool)})
        >>> outputs = mmf.Outputs(
        ...     jnp.zeros((2, 3)), {"gate": jnp.array([[1.0, 1.0], [1.0, 0.0]])}
        ... )
        >>> loss = mmf.losses.GateEntropy()(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [-0.69  0.  ]

    Attributes:
        form: "normalized" or "paper", see above.
        gate: Name in `Outputs.aux`, (b m), 0 where a modality is missing.

    Reference:
        Hetero-Fusion-Net, Eq. 5; lambda is the weight of the term. OF-CMAER-CAT,
        Eq. 18, of the weights of Eq. 10.
    Deviation:
        Eq. 5 is added to the loss, so it lowers the entropy, and its gates do not sum
        to 1; Eq. 19 of OF-CMAER-CAT adds Eq. 18 with the same sign. By both texts all
        modalities should be used: the default raises the entropy of the normalized
        gates. The argument of the logarithm is clipped to 1e-8..1.
    """

    scope: ClassVar[str] = EXAMPLE

    form: Literal["normalized", "paper"] = "normalized"
    gate: Name = "gate"

    def __post_init__(self):
        check_choice("form", self.form, FORMS)

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        gate = zero_masked(model_output(outputs, self.gate), batch.weight > 0)
        gate = jnp.maximum(gate, 0)  # gates are at least 0 except for rounding
        if self.form == "paper":
            return -_sum_p_log_p(gate)
        total = jnp.sum(gate, axis=1, keepdims=True)
        return _sum_p_log_p(gate / jnp.maximum(total, TINY))


def _sum_p_log_p(p: Array) -> Array:
    """sum_m p_m ln p_m, (b)."""
    # Clipped inside the logarithm only: p ln p of a missing modality is then 0, with a
    # finite gradient.
    return jnp.sum(p * jnp.log(jnp.clip(p, TINY, 1.0)), axis=1)
