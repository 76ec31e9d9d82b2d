"""Loss terms, and the objective that weighs and adds them."""

from mmfusion_jax.losses.adversarial import (
    AgnosticAdversary,
    ExclusiveAdversary,
    Importance,
)
from mmfusion_jax.losses.contrastive import InfoNCE
from mmfusion_jax.losses.disparity import HSICDisparity, Separation
from mmfusion_jax.losses.multiplicative import Multiplicative
from mmfusion_jax.losses.supervised import L1, MSE, CrossEntropy, Multilabel

LOSSES = {
    "agnostic_adversary": AgnosticAdversary,
    "cross_entropy": CrossEntropy,
    "exclusive_adversary": ExclusiveAdversary,
    "hsic": HSICDisparity,
    "importance": Importance,
    "info_nce": InfoNCE,
    "l1": L1,
    "mse": MSE,
    "multilabel": Multilabel,
    "multiplicative": Multiplicative,
    "separation": Separation,
}
