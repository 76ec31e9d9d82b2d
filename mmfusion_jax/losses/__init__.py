"""Loss terms, and the objective that computes their weighted sum."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

LOSSES = {
    "agnostic_adversary": "mmfusion_jax.losses.adversarial:AgnosticAdversary",
    "consistency": "mmfusion_jax.losses.unimodal:Consistency",
    "cross_entropy": "mmfusion_jax.losses.supervised:CrossEntropy",
    "ctc": "mmfusion_jax.losses.ctc:CTC",
    "difference_loss": "mmfusion_jax.losses.disparity:DifferenceLoss",
    "exclusive_adversary": "mmfusion_jax.losses.adversarial:ExclusiveAdversary",
    "gate_entropy": "mmfusion_jax.losses.gate_entropy:GateEntropy",
    "hsic": "mmfusion_jax.losses.disparity:HSICDisparity",
    "importance_discriminator": (
        "mmfusion_jax.losses.adversarial:ImportanceDiscriminatorLoss"
    ),
    "info_nce": "mmfusion_jax.losses.contrastive:InfoNCE",
    "l1": "mmfusion_jax.losses.supervised:L1",
    "modality_contrast": "mmfusion_jax.losses.modality_contrast:ModalityContrast",
    "mse": "mmfusion_jax.losses.supervised:MSE",
    "multilabel": "mmfusion_jax.losses.supervised:Multilabel",
    "multiplicative": "mmfusion_jax.losses.multiplicative:Multiplicative",
    "reconstruction": "mmfusion_jax.losses.reconstruction:Reconstruction",
    "unimodal_losses": "mmfusion_jax.losses.unimodal:UnimodalLoss",
}
"""Short name -> import path."""

PUBLIC = by_name(
    (
        *LOSSES.values(),
        "mmfusion_jax.losses.candidates:Candidates",
        "mmfusion_jax.losses.model_outputs:model_output",
        "mmfusion_jax.losses.objective:Objective",
        "mmfusion_jax.losses.objective:WeightedLoss",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.losses.adversarial import AgnosticAdversary as AgnosticAdversary
    from mmfusion_jax.losses.adversarial import ExclusiveAdversary as ExclusiveAdversary
    from mmfusion_jax.losses.adversarial import (
        ImportanceDiscriminatorLoss as ImportanceDiscriminatorLoss,
    )
    from mmfusion_jax.losses.candidates import Candidates as Candidates
    from mmfusion_jax.losses.contrastive import InfoNCE as InfoNCE
    from mmfusion_jax.losses.ctc import CTC as CTC
    from mmfusion_jax.losses.disparity import DifferenceLoss as DifferenceLoss
    from mmfusion_jax.losses.disparity import HSICDisparity as HSICDisparity
    from mmfusion_jax.losses.gate_entropy import GateEntropy as GateEntropy
    from mmfusion_jax.losses.modality_contrast import (
        ModalityContrast as ModalityContrast,
    )
    from mmfusion_jax.losses.model_outputs import model_output as model_output
    from mmfusion_jax.losses.multiplicative import Multiplicative as Multiplicative
    from mmfusion_jax.losses.objective import Objective as Objective
    from mmfusion_jax.losses.objective import WeightedLoss as WeightedLoss
    from mmfusion_jax.losses.reconstruction import Reconstruction as Reconstruction
    from mmfusion_jax.losses.supervised import L1 as L1
    from mmfusion_jax.losses.supervised import MSE as MSE
    from mmfusion_jax.losses.supervised import CrossEntropy as CrossEntropy
    from mmfusion_jax.losses.supervised import Multilabel as Multilabel
    from mmfusion_jax.losses.unimodal import Consistency as Consistency
    from mmfusion_jax.losses.unimodal import UnimodalLoss as UnimodalLoss
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
