"""Maps parameter names of Wav2Vec 2.0 to those of the transformers library."""

import numpy as np

from mmfusion_jax.weights.convert import NameRule, WeightMapping, affine, kernel, norm

LAYER = r"layer_(\d+)/"
SOURCE = r"encoder.layers.\1."
POS_CONV = "encoder.pos_conv_embed.conv"

WAV2VEC2 = WeightMapping(
    rules=(
        NameRule(
            r"conv_(\d)/kernel", r"feature_extractor.conv_layers.\1.conv.weight", kernel
        ),
        *norm("conv_norm", "feature_extractor.conv_layers.0.layer_norm"),
        *norm("project_norm", "feature_projection.layer_norm"),
        *affine("project", "feature_projection.projection"),
        NameRule("place/direction", f"{POS_CONV}.weight_v", kernel),
        NameRule("place/length", f"{POS_CONV}.weight_g", np.ravel),
        NameRule("place/bias", f"{POS_CONV}.bias"),
        *norm("norm", "encoder.layer_norm"),
        *affine(rf"{LAYER}attention/(query|key|value)", rf"{SOURCE}attention.\2_proj"),
        *affine(f"{LAYER}attention/out", f"{SOURCE}attention.out_proj"),
        *affine(f"{LAYER}expand", f"{SOURCE}feed_forward.intermediate_dense"),
        *affine(f"{LAYER}shrink", f"{SOURCE}feed_forward.output_dense"),
        *norm(f"{LAYER}attention_norm", f"{SOURCE}layer_norm"),
        *norm(f"{LAYER}feedforward_norm", f"{SOURCE}final_layer_norm"),
    ),
    export=(
        'python -c "from transformers import Wav2Vec2Model; '
        "Wav2Vec2Model.from_pretrained('facebook/wav2vec2-base').save_pretrained("
        "'wav2vec2')\" writes wav2vec2/model.safetensors"
    ),
    renames=(
        (r"^(module\.)?(wav2vec2\.)?", ""),
        # Names of weight normalization in newer versions of PyTorch.
        (r"conv\.parametrizations\.weight\.original0$", "conv.weight_g"),
        (r"conv\.parametrizations\.weight\.original1$", "conv.weight_v"),
        (r"attention\.q_proj", "attention.query_proj"),
        (r"attention\.k_proj", "attention.key_proj"),
        (r"attention\.v_proj", "attention.value_proj"),
    ),
)
