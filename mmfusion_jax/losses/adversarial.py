"""Discriminators that tell modalities apart, and whom they judge."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmfusion_jax.losses.model_outputs import check_choice, model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Batch, Outputs

OMEGAS = ("detached", "joint", "one")


@dataclasses.dataclass(frozen=True)
class AgnosticAdversary:
    """Loss term: the modality discriminator on agnostic features.

        L_agn = -1/n sum_m sum_k omega_m log[D_m(h^a_m)]_m           (MEA, Eq. 15)
        omega_m = 1 - [D_i(h^a_m)]_m

    Attributes:
        modalities: each has its logits in
            `Outputs.aux["discriminator/agnostic/<m>"]` and, for omega,
            `["importance/<m>"]`, (b M); the place of a modality here is its class.
        omega: "detached" takes omega as a constant, and D_i learns from
            `ImportanceDiscriminatorLoss`; "joint" lets the gradient of this term
            through omega; "one" is the ablation "w/o Degree omega".

    Deviation:
        Nothing in the paper trains D_i: hence "detached". The model reverses the
        gradient in front of D_m, and for "joint" in front of D_i as well: otherwise
        less omega makes the modalities easier to tell apart. A missing modality adds 0.
    """

    modalities: tuple[str, ...]
    omega: str = "detached"

    def __post_init__(self):
        check_choice("omega", self.omega, OMEGAS)

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        def loss(place: int, name: str, present: Array) -> Array:
            logits = zero_masked(
                model_output(outputs, f"discriminator/agnostic/{name}"), present
            )
            omega = self._omega(place, name, present, outputs)
            return -omega * jax.nn.log_softmax(logits)[:, place]

        return _sum(loss, self.modalities, batch)

    def _omega(
        self, place: int, name: str, present: Array, outputs: Outputs
    ) -> Array | float:
        """How hard it is to recognize the modality by its agnostic features, (b)."""
        if self.omega == "one":
            return 1.0
        logits = zero_masked(model_output(outputs, f"importance/{name}"), present)
        omega = 1 - jax.nn.softmax(logits)[:, place]
        return omega if self.omega == "joint" else jax.lax.stop_gradient(omega)


@dataclasses.dataclass(frozen=True)
class ExclusiveAdversary:
    """Loss term: the modality discriminator on exclusive features.

        L_exc = -1/n sum_m sum_k log[D_m(h^e_m)]_m                   (MEA, Eq. 16)

    Attributes:
        modalities: each has its logits in
            `Outputs.aux["discriminator/exclusive/<m>"]`, (b M); the place of a
            modality here is its class.
    """

    modalities: tuple[str, ...]

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return _recognize("discriminator/exclusive", self.modalities, outputs, batch)


@dataclasses.dataclass(frozen=True)
class ImportanceDiscriminatorLoss:
    """Loss term: the importance discriminator on agnostic features.

        L_imp = -1/n sum_m sum_k log[D_i(h^a_m)]_m

    Attributes:
        modalities: each has its logits in `Outputs.aux["importance/<m>"]`, (b M);
            the place of a modality here is its class.

    Reference:
        MEA, Sec. III-E.3.
    Deviation:
        The paper has no loss for D_i; this one goes with omega="detached", where the
        model stops the gradient in front of D_i.
    """

    modalities: tuple[str, ...]

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return _recognize("importance", self.modalities, outputs, batch)


def _recognize(
    prefix: str, modalities: tuple[str, ...], outputs: Outputs, batch: Batch
) -> Array:
    """The cross-entropy of telling every modality by its logits "prefix/<m>", (b)."""

    def loss(place: int, name: str, present: Array) -> Array:
        logits = zero_masked(model_output(outputs, f"{prefix}/{name}"), present)
        return -jax.nn.log_softmax(logits)[:, place]

    return _sum(loss, modalities, batch)


def _sum(
    loss: Callable[[int, str, Array], Array], modalities: tuple[str, ...], batch: Batch
) -> Array:
    """The sum of the losses (b) of the modalities that an example has, (b)."""
    total = jnp.zeros(batch.weight.shape, jnp.float32)
    for place, name in enumerate(modalities):
        present = batch.has_modalities(name)
        total = total + zero_masked(loss(place, name, present), present)
    return total
