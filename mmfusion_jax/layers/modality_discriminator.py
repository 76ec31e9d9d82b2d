"""Two discriminators that tell modalities apart by what the branches make of them."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.ops.gradient_reversal import reverse_gradient
from mmfusion_jax.types import Array

OMEGAS = ("detached", "joint", "one")


class ModalityDiscriminator(nn.Module):
    """Which modality is it? D_m asks both branches, D_i the agnostic one.

        D_m(h) = W h + b
        D_i(h) = W_i h

    Parameters: `modality` (D_m), `importance` (D_i).

    Attributes:
        omega: where D_i stands: "detached" behind a stopped gradient, "joint" behind
            the reversed one, "one" nowhere.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        MEA, Sec. III-E.3.
    Deviation:
        Were D_i trained by Eq. 15 without the reversal, h^a would become easier to
        recognize, which makes omega small: hence "detached".
    """

    omega: Literal["detached", "joint", "one"] = "detached"
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        exclusive: Mapping[str, Array],
        agnostic: Mapping[str, Array],
        classes: int,
        strength: float | Array = 1.0,
    ) -> dict[str, Array]:
        """Judges.

        Args:
            exclusive: h^e (b d) by modality; may be empty.
            agnostic: h^a (b d) by modality; may be empty.
            classes: number of modalities, M.
            strength: of the reversed gradient in front of D_m(h^a), () or (b).

        Returns:
            Logits (b M): "discriminator/exclusive/<m>", "discriminator/agnostic/<m>",
            and "importance/<m>" unless omega is "one".

        Raises:
            ConfigError: if `omega` is unknown.
        """
        if self.omega not in OMEGAS:
            raise ConfigError(
                "C03", f"omega={self.omega!r} is unknown.", suggest(self.omega, OMEGAS)
            )
        width = next(iter((exclusive or agnostic).values())).shape[-1]
        judge = torch_dense(width, classes, dtype=self.dtype, name="modality")
        weigh = torch_dense(
            width, classes, use_bias=False, dtype=self.dtype, name="importance"
        )
        logits = {
            f"discriminator/exclusive/{m}": judge(h) for m, h in exclusive.items()
        }
        for m, h in agnostic.items():
            backwards = reverse_gradient(h, strength)
            logits[f"discriminator/agnostic/{m}"] = judge(backwards)
            if self.omega == "joint":
                logits[f"importance/{m}"] = weigh(backwards)
            elif self.omega == "detached":
                logits[f"importance/{m}"] = weigh(jax.lax.stop_gradient(h))
        return logits
