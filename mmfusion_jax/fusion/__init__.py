"""Fusion blocks, which map streams to streams."""

FUSIONS = {
    "adaptive_gate": "mmfusion_jax.fusion.adaptive_gate:AdaptiveGate",
    "cross_modal_alignment": (
        "mmfusion_jax.fusion.cross_modal_alignment:CrossModalAlignment"
    ),
    "graph_fusion": "mmfusion_jax.fusion.adapters:ModalityGraph",
    "hierarchical_attention": "mmfusion_jax.fusion.adapters:HierarchicalFusion",
    "identity": "mmfusion_jax.fusion.adapters:Identity",
    "modality_attention": "mmfusion_jax.fusion.modality_attention:ModalityAttention",
    "modality_weighting": "mmfusion_jax.fusion.adapters:WeightedModalities",
    "predictive_self_attention": "mmfusion_jax.fusion.adapters:PredictiveFusion",
    "reinforcement_unit": "mmfusion_jax.fusion.adapters:ModalityReinforcement",
    "residual_attention": "mmfusion_jax.fusion.residual_attention:ResidualAttention",
    "stack_modalities": "mmfusion_jax.fusion.adapters:StackedModalities",
    "tensor_convolution": "mmfusion_jax.fusion.tensor_convolution:TensorConvolution",
    "transformer_context": "mmfusion_jax.fusion.transformer_context:TransformerContext",
}
"""Short name -> import path."""
