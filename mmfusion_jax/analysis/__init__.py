"""Parameter counts, computational cost, derivatives of single loss terms."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

PUBLIC = by_name(
    (
        "mmfusion_jax.analysis.cost:count_macs",
        "mmfusion_jax.analysis.cost:count_parameters",
        "mmfusion_jax.analysis.cost:output_shapes",
        "mmfusion_jax.analysis.curvature:TermCurvature",
        "mmfusion_jax.analysis.curvature:gradient_noise_scale",
        "mmfusion_jax.analysis.curvature:hessian_product",
        "mmfusion_jax.analysis.curvature:term_curvature",
        "mmfusion_jax.analysis.curvature:term_hessian_products",
        "mmfusion_jax.analysis.curvature:top_eigenvalue",
        "mmfusion_jax.analysis.diagnosis:leave_out",
        "mmfusion_jax.analysis.diagnosis:stream_moments",
        "mmfusion_jax.analysis.diagnosis:varying_energy",
        "mmfusion_jax.analysis.gradients:GradientSimilarity",
        "mmfusion_jax.analysis.gradients:gradient_similarity",
        "mmfusion_jax.analysis.gradients:make_gradient_stats",
        "mmfusion_jax.analysis.gradients:term_gradients",
        "mmfusion_jax.analysis.gradients:term_norms",
        "mmfusion_jax.analysis.gradients:term_values",
        "mmfusion_jax.analysis.gradients:term_weights",
        "mmfusion_jax.analysis.modality_weights:mean_modality_weights",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.analysis.cost import count_macs as count_macs
    from mmfusion_jax.analysis.cost import count_parameters as count_parameters
    from mmfusion_jax.analysis.cost import output_shapes as output_shapes
    from mmfusion_jax.analysis.curvature import TermCurvature as TermCurvature
    from mmfusion_jax.analysis.curvature import (
        gradient_noise_scale as gradient_noise_scale,
    )
    from mmfusion_jax.analysis.curvature import hessian_product as hessian_product
    from mmfusion_jax.analysis.curvature import term_curvature as term_curvature
    from mmfusion_jax.analysis.curvature import (
        term_hessian_products as term_hessian_products,
    )
    from mmfusion_jax.analysis.curvature import top_eigenvalue as top_eigenvalue
    from mmfusion_jax.analysis.diagnosis import leave_out as leave_out
    from mmfusion_jax.analysis.diagnosis import stream_moments as stream_moments
    from mmfusion_jax.analysis.diagnosis import varying_energy as varying_energy
    from mmfusion_jax.analysis.gradients import GradientSimilarity as GradientSimilarity
    from mmfusion_jax.analysis.gradients import (
        gradient_similarity as gradient_similarity,
    )
    from mmfusion_jax.analysis.gradients import (
        make_gradient_stats as make_gradient_stats,
    )
    from mmfusion_jax.analysis.gradients import term_gradients as term_gradients
    from mmfusion_jax.analysis.gradients import term_norms as term_norms
    from mmfusion_jax.analysis.gradients import term_values as term_values
    from mmfusion_jax.analysis.gradients import term_weights as term_weights
    from mmfusion_jax.analysis.modality_weights import (
        mean_modality_weights as mean_modality_weights,
    )
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
