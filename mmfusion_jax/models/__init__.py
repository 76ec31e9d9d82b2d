"""One file per paper, and the baselines of their tables."""

from mmfusion_jax.models.baselines import ConcatFC, LateFusion, Unimodal
from mmfusion_jax.models.cfn_sr import CFNSR
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.models.mea import MEA

MODELS = {
    "cfn_sr": CFNSR,
    "mcl_mcf": MCLMCF,
    "mea": MEA,
    "unimodal": Unimodal,
    "late_fusion": LateFusion,
    "concat_fc": ConcatFC,
}
