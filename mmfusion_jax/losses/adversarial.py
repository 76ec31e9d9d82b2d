"""Adversarial losses of the modality discriminators (MEA)."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from mmfusion_jax.losses.candidates import EXAMPLE
from mmfusion_jax.losses.model_outputs import check_choice, model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import AllModalities
from mmfusion_jax.types import Array, Batch, Outputs

OMEGAS = ("detached", "joint", "one")


@dataclasses.dataclass(frozen=True)
class AgnosticAdversary:
    """Adversarial loss of the modality discriminator on agnostic features.

        L_agn = -1/n sum_m sum_k omega_m log[D_m(h^a_m)]_m           (MEA, Eq. 15)
        omega_m = 1 - [D_i(h^a_m)]_m

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> names = ("audio", "video")
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch({}, {"audio": mask, "video": mask})
        >>> logits = {f"discriminator/agnostic/{m}": jnp.zeros((2, 2)) for m in names}
        >>> outputs = mmf.Outputs(jnp.zeros((2, 3)), logits)
        >>> loss = mmf.losses.AgnosticAdversary(names, omega="one")(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [1.39 1.39]

    Attributes:
        modalities: Names, in the order of the discriminator's classes; each has logits
            in `Outputs.aux["discriminator/agnostic/<m>"]` and, for omega,
            `["importance/<m>"]`, (b M).
        omega: "detached" treats omega as a constant, and D_i is trained by
            `ImportanceDiscriminatorLoss`; "joint" backpropagates through omega; "one"
            is the ablation "w/o Degree omega".

    Reference:
        MEA, Eq. 15.
    Deviation:
        No loss in the paper trains D_i: hence "detached". The model reverses the
        gradient before D_m, and for "joint" before D_i as well; otherwise a smaller
        omega would make the modalities easier to discriminate. A missing modality
        contributes 0.
    """

    scope: ClassVar[str] = EXAMPLE

    modalities: AllModalities
    omega: Literal["detached", "joint", "one"] = "detached"

    def __post_init__(self):
        check_choice("omega", self.omega, OMEGAS)

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        def loss(index: int, name: str, present: Array) -> Array:
            # Before the softmax and again in `_sum`: the loss of a missing modality is
            # 0, and without the first its NaN would still reach the gradient, as 0
            # times NaN.
            logits = zero_masked(
                model_output(outputs, f"discriminator/agnostic/{name}"), present
            )
            omega = self._omega(index, name, present, outputs)
            return -omega * jax.nn.log_softmax(logits)[:, index]

        return _sum(loss, self.modalities, batch)

    def _omega(
        self, index: int, name: str, present: Array, outputs: Outputs
    ) -> Array | float:
        """Weight of an example: 1 - probability of the true modality, (b)."""
        if self.omega == "one":
            return 1.0
        logits = zero_masked(model_output(outputs, f"importance/{name}"), present)
        omega = importance_weight(logits, index)
        return omega if self.omega == "joint" else jax.lax.stop_gradient(omega)


def importance_weight(logits: Array, index: int) -> Array:
    """Computes omega of Eq. 15, (b), from the logits (b M) of D_i.

    Args:
        logits: Logits of D_i.
        index: Class of the modality that the features are of.
    """
    return 1 - jax.nn.softmax(logits)[:, index]


@dataclasses.dataclass(frozen=True)
class ExclusiveAdversary:
    """Loss of the modality discriminator on exclusive features.

        L_exc = -1/n sum_m sum_k log[D_m(h^e_m)]_m                   (MEA, Eq. 16)

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> names = ("audio", "video")
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch({}, {"audio": mask, "video": mask})
        >>> logits = {f"discriminator/exclusive/{m}": jnp.zeros((2, 2)) for m in names}
        >>> outputs = mmf.Outputs(jnp.zeros((2, 3)), logits)
        >>> loss = mmf.losses.ExclusiveAdversary(names)(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [1.39 1.39]

    Attributes:
        modalities: Names, in the order of the discriminator's classes; each has logits
            in `Outputs.aux["discriminator/exclusive/<m>"]`, (b M).

    Reference:
        MEA, Eq. 16.
    """

    scope: ClassVar[str] = EXAMPLE

    modalities: AllModalities

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return _classification_loss(
            "discriminator/exclusive", self.modalities, outputs, batch
        )


@dataclasses.dataclass(frozen=True)
class ImportanceDiscriminatorLoss:
    """Loss of the importance discriminator on agnostic features.

        L_imp = -1/n sum_m sum_k log[D_i(h^a_m)]_m

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> names = ("audio", "video")
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch({}, {"audio": mask, "video": mask})
        >>> logits = {f"importance/{m}": jnp.zeros((2, 2)) for m in names}
        >>> outputs = mmf.Outputs(jnp.zeros((2, 3)), logits)
        >>> loss = mmf.losses.ImportanceDiscriminatorLoss(names)(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [1.39 1.39]

    Attributes:
        modalities: Names, in the order of the discriminator's classes; each has logits
            in `Outputs.aux["importance/<m>"]`, (b M).

    Reference:
        MEA, Sec. III-E.3.
    Deviation:
        The paper has no loss for D_i; this one is for omega="detached", where the model
        stops the gradient before D_i.
    """

    scope: ClassVar[str] = EXAMPLE

    modalities: AllModalities

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return _classification_loss("importance", self.modalities, outputs, batch)


def _classification_loss(
    prefix: str, modalities: tuple[str, ...], outputs: Outputs, batch: Batch
) -> Array:
    """Cross-entropy of the logits "prefix/<m>" with the modality as the class, (b)."""

    def loss(index: int, name: str, present: Array) -> Array:
        logits = zero_masked(model_output(outputs, f"{prefix}/{name}"), present)
        return -jax.nn.log_softmax(logits)[:, index]

    return _sum(loss, modalities, batch)


def _sum(
    loss: Callable[[int, str, Array], Array], modalities: tuple[str, ...], batch: Batch
) -> Array:
    """Sum of the losses of the modalities that are present, (b)."""
    total = jnp.zeros(batch.weight.shape, jnp.float32)
    for index, name in enumerate(modalities):
        present = batch.has_modalities(name)
        total = total + zero_masked(loss(index, name, present), present)
    return total
