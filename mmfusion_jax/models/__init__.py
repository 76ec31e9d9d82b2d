"""The models of the papers, one file each, baselines, and a model of any block."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

MODELS = {
    "cfn_sr": "mmfusion_jax.models.cfn_sr:CFNSR",
    "hetero_fusion_net": "mmfusion_jax.models.hetero_fusion_net:HeteroFusionNet",
    "mcl_mcf": "mmfusion_jax.models.mcl_mcf:MCLMCF",
    "mcbp": "mmfusion_jax.models.mcbp:MCBP",
    "mea": "mmfusion_jax.models.mea:MEA",
    "mmtm": "mmfusion_jax.models.intermediate_fusion:MMTM",
    "msaf": "mmfusion_jax.models.intermediate_fusion:MSAF",
    "of_cmaer_cat": "mmfusion_jax.models.of_cmaer_cat:OFCMAERCAT",
    "fused": "mmfusion_jax.models.fused:Fused",
    "unimodal": "mmfusion_jax.models.baselines:Unimodal",
    "late_fusion": "mmfusion_jax.models.baselines:LateFusion",
    "concat_fc": "mmfusion_jax.models.baselines:ConcatFC",
}
"""Short name -> import path."""

GENERIC_MODELS = ("fused", "concat_fc", "late_fusion", "unimodal")
"""Models that can replace the model of any config."""

CONFIG_WORDS = {m: f"cfn_sr:digits_{m}" for m in ("mcbp", "mmtm", "msaf")}
"""Model of a paper that has no config of its own -> a word that trains it."""

PUBLIC = by_name(
    (
        *MODELS.values(),
        "mmfusion_jax.models.common:encode",
        "mmfusion_jax.models.common:prediction_head",
        "mmfusion_jax.models.common:weights_by_modality",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.models.baselines import ConcatFC as ConcatFC
    from mmfusion_jax.models.baselines import LateFusion as LateFusion
    from mmfusion_jax.models.baselines import Unimodal as Unimodal
    from mmfusion_jax.models.cfn_sr import CFNSR as CFNSR
    from mmfusion_jax.models.common import encode as encode
    from mmfusion_jax.models.common import prediction_head as prediction_head
    from mmfusion_jax.models.common import weights_by_modality as weights_by_modality
    from mmfusion_jax.models.fused import Fused as Fused
    from mmfusion_jax.models.hetero_fusion_net import HeteroFusionNet as HeteroFusionNet
    from mmfusion_jax.models.intermediate_fusion import MMTM as MMTM
    from mmfusion_jax.models.intermediate_fusion import MSAF as MSAF
    from mmfusion_jax.models.mcbp import MCBP as MCBP
    from mmfusion_jax.models.mcl_mcf import MCLMCF as MCLMCF
    from mmfusion_jax.models.mea import MEA as MEA
    from mmfusion_jax.models.of_cmaer_cat import OFCMAERCAT as OFCMAERCAT
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
