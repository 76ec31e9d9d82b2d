"""Loss terms, and the objective that weighs and adds them."""

from mmfusion_jax.losses.adversarial import (
    AgnosticAdversary,
    ExclusiveAdversary,
    Importance,
)
from mmfusion_jax.losses.contrastive import InfoNCE
from mmfusion_jax.losses.ctc import CTC
from mmfusion_jax.losses.disparity import HSICDisparity, Separation
from mmfusion_jax.losses.gate_entropy import GateEntropy
from mmfusion_jax.losses.modality_contrast import ModalityContrast
from mmfusion_jax.losses.multiplicative import Multiplicative
from mmfusion_jax.losses.reconstruction import Reconstruction
from mmfusion_jax.losses.supervised import L1, MSE, CrossEntropy, Multilabel
from mmfusion_jax.losses.unimodal import Consistency, SingleModalities

LOSSES = {
    "agnostic_adversary": AgnosticAdversary,
    "consistency": Consistency,
    "cross_entropy": CrossEntropy,
    "ctc": CTC,
    "exclusive_adversary": ExclusiveAdversary,
    "gate_entropy": GateEntropy,
    "hsic": HSICDisparity,
    "importance": Importance,
    "info_nce": InfoNCE,
    "l1": L1,
    "modality_contrast": ModalityContrast,
    "mse": MSE,
    "multilabel": Multilabel,
    "multiplicative": Multiplicative,
    "reconstruction": Reconstruction,
    "separation": Separation,
    "single_modalities": SingleModalities,
}

OF_PREDICTIONS = frozenset({"cross_entropy", "l1", "mse", "multilabel"})
"""Terms that read the prediction of any model, or the extras that they name."""

OF_UNIMODAL_LOGITS = frozenset({"consistency", "multiplicative", "single_modalities"})
"""Terms that read "logits/<modality>"; those that are in neither read what one model
alone gives."""
