"""Fusion blocks, which map streams to streams."""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

FUSIONS = {
    "adaptive_gate": "mmfusion_jax.fusion.adaptive_gate:AdaptiveGate",
    "compact_bilinear": "mmfusion_jax.fusion.compact_bilinear:CompactBilinear",
    "cross_modal_alignment": (
        "mmfusion_jax.fusion.cross_modal_alignment:CrossModalAlignment"
    ),
    "graph_fusion": "mmfusion_jax.fusion.adapters:ModalityGraph",
    "hierarchical_attention": "mmfusion_jax.fusion.adapters:HierarchicalFusion",
    "identity": "mmfusion_jax.fusion.adapters:Identity",
    "modality_attention": "mmfusion_jax.fusion.modality_attention:ModalityAttention",
    "modality_weighting": "mmfusion_jax.fusion.adapters:WeightedModalities",
    "multimodal_transfer": "mmfusion_jax.fusion.multimodal_transfer:MultimodalTransfer",
    "predictive_self_attention": "mmfusion_jax.fusion.adapters:PredictiveFusion",
    "reinforcement_unit": "mmfusion_jax.fusion.adapters:ModalityReinforcement",
    "residual_attention": "mmfusion_jax.fusion.residual_attention:ResidualAttention",
    "split_attention": "mmfusion_jax.fusion.split_attention:SplitAttention",
    "stack_modalities": "mmfusion_jax.fusion.adapters:StackedModalities",
    "tensor_convolution": "mmfusion_jax.fusion.tensor_convolution:TensorConvolution",
    "transformer_context": "mmfusion_jax.fusion.transformer_context:TransformerContext",
}
"""Short name -> import path."""

PUBLIC = by_name(
    (
        *FUSIONS.values(),
        "mmfusion_jax.fusion.graph_fusion:GraphFusion",
        "mmfusion_jax.fusion.hierarchical_attention:HierarchicalAttention",
        "mmfusion_jax.fusion.modality_weighting:ModalityWeighting",
        "mmfusion_jax.fusion.predictive_self_attention:PredictiveSelfAttention",
        "mmfusion_jax.fusion.reinforcement_unit:ReinforcementUnit",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.fusion.adapters import HierarchicalFusion as HierarchicalFusion
    from mmfusion_jax.fusion.adapters import Identity as Identity
    from mmfusion_jax.fusion.adapters import ModalityGraph as ModalityGraph
    from mmfusion_jax.fusion.adapters import (
        ModalityReinforcement as ModalityReinforcement,
    )
    from mmfusion_jax.fusion.adapters import PredictiveFusion as PredictiveFusion
    from mmfusion_jax.fusion.adapters import StackedModalities as StackedModalities
    from mmfusion_jax.fusion.adapters import WeightedModalities as WeightedModalities
    from mmfusion_jax.fusion.adaptive_gate import AdaptiveGate as AdaptiveGate
    from mmfusion_jax.fusion.compact_bilinear import CompactBilinear as CompactBilinear
    from mmfusion_jax.fusion.cross_modal_alignment import (
        CrossModalAlignment as CrossModalAlignment,
    )
    from mmfusion_jax.fusion.graph_fusion import GraphFusion as GraphFusion
    from mmfusion_jax.fusion.hierarchical_attention import (
        HierarchicalAttention as HierarchicalAttention,
    )
    from mmfusion_jax.fusion.modality_attention import (
        ModalityAttention as ModalityAttention,
    )
    from mmfusion_jax.fusion.modality_weighting import (
        ModalityWeighting as ModalityWeighting,
    )
    from mmfusion_jax.fusion.multimodal_transfer import (
        MultimodalTransfer as MultimodalTransfer,
    )
    from mmfusion_jax.fusion.predictive_self_attention import (
        PredictiveSelfAttention as PredictiveSelfAttention,
    )
    from mmfusion_jax.fusion.reinforcement_unit import (
        ReinforcementUnit as ReinforcementUnit,
    )
    from mmfusion_jax.fusion.residual_attention import (
        ResidualAttention as ResidualAttention,
    )
    from mmfusion_jax.fusion.split_attention import SplitAttention as SplitAttention
    from mmfusion_jax.fusion.tensor_convolution import (
        TensorConvolution as TensorConvolution,
    )
    from mmfusion_jax.fusion.transformer_context import (
        TransformerContext as TransformerContext,
    )
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
