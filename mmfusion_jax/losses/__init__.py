"""Loss terms, and the objective that computes their weighted sum."""

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
