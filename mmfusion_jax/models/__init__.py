"""One file per paper, and the baselines of their tables."""

from mmfusion_jax.models.baselines import ConcatFC, LateFusion, Unimodal
from mmfusion_jax.models.cfn_sr import CFNSR
from mmfusion_jax.models.hetero_fusion_net import HeteroFusionNet
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.models.mea import MEA
from mmfusion_jax.models.of_cmaer_cat import OFCMAERCAT

MODELS = {
    "cfn_sr": CFNSR,
    "hetero_fusion_net": HeteroFusionNet,
    "mcl_mcf": MCLMCF,
    "mea": MEA,
    "of_cmaer_cat": OFCMAERCAT,
    "unimodal": Unimodal,
    "late_fusion": LateFusion,
    "concat_fc": ConcatFC,
}

UNIMODAL_LOGITS = frozenset({"hetero_fusion_net", "late_fusion", "unimodal"})
"""Models whose extras hold "logits/<modality>", what every modality says alone."""
