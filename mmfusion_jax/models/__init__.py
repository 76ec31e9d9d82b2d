"""One file per paper, and the baselines of their tables."""

from mmfusion_jax.models.cfn_sr import CFNSR

MODELS = {
    "cfn_sr": CFNSR,
}
