"""Array functions without parameters."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

PUBLIC = by_name(
    (
        "mmfusion_jax.ops.masking:last_valid",
        "mmfusion_jax.ops.masking:masked_mean",
        "mmfusion_jax.ops.masking:masked_softmax",
        "mmfusion_jax.ops.masking:zero_masked",
        "mmfusion_jax.ops.contrastive:info_nce",
        "mmfusion_jax.ops.contrastive:l2_normalize",
        "mmfusion_jax.ops.row_gathering:gather_rows",
        "mmfusion_jax.ops.independence:hsic",
        "mmfusion_jax.ops.independence:squared_cross_correlation",
        "mmfusion_jax.ops.gradient_reversal:reverse_gradient",
        "mmfusion_jax.ops.lstm_scan:lstm",
        "mmfusion_jax.ops.lstm_scan:LSTMWeights",
        "mmfusion_jax.ops.memory_efficient_attention:dot_attention",
        "mmfusion_jax.ops.parameter_free_layer_norm:layer_normalize",
        "mmfusion_jax.ops.predicted_attention:predict_attention",
        "mmfusion_jax.ops.softmax_weighted_sum:weighted_sum",
        "mmfusion_jax.ops.compact_bilinear",
        "mmfusion_jax.ops.feature_variation:varying_energy",
        "mmfusion_jax.ops.late_fusion",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.ops import compact_bilinear as compact_bilinear
    from mmfusion_jax.ops import late_fusion as late_fusion
    from mmfusion_jax.ops.contrastive import info_nce as info_nce
    from mmfusion_jax.ops.contrastive import l2_normalize as l2_normalize
    from mmfusion_jax.ops.feature_variation import varying_energy as varying_energy
    from mmfusion_jax.ops.gradient_reversal import reverse_gradient as reverse_gradient
    from mmfusion_jax.ops.independence import hsic as hsic
    from mmfusion_jax.ops.independence import (
        squared_cross_correlation as squared_cross_correlation,
    )
    from mmfusion_jax.ops.lstm_scan import LSTMWeights as LSTMWeights
    from mmfusion_jax.ops.lstm_scan import lstm as lstm
    from mmfusion_jax.ops.masking import last_valid as last_valid
    from mmfusion_jax.ops.masking import masked_mean as masked_mean
    from mmfusion_jax.ops.masking import masked_softmax as masked_softmax
    from mmfusion_jax.ops.masking import zero_masked as zero_masked
    from mmfusion_jax.ops.memory_efficient_attention import (
        dot_attention as dot_attention,
    )
    from mmfusion_jax.ops.parameter_free_layer_norm import (
        layer_normalize as layer_normalize,
    )
    from mmfusion_jax.ops.predicted_attention import (
        predict_attention as predict_attention,
    )
    from mmfusion_jax.ops.row_gathering import gather_rows as gather_rows
    from mmfusion_jax.ops.softmax_weighted_sum import weighted_sum as weighted_sum
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
