"""Maps parameter names of ViT to those of the transformers library."""

import numpy as np

from mmfusion_jax.weights.convert import NameRule, WeightMapping, affine, kernel, norm

LAYER = r"layer_(\d+)/"
SOURCE = r"encoder.layer.\1."


def patches(x: np.ndarray) -> np.ndarray:
    """Returns a convolution (d c p p) as a matrix (p*p*c d) for flattened patches."""
    return kernel(x).reshape(-1, x.shape[0])


VIT = WeightMapping(
    rules=(
        NameRule("first", "embeddings.cls_token"),
        NameRule("place", "embeddings.position_embeddings"),
        NameRule(
            "embed/kernel", "embeddings.patch_embeddings.projection.weight", patches
        ),
        NameRule("embed/bias", "embeddings.patch_embeddings.projection.bias"),
        *affine(
            rf"{LAYER}attention/(query|key|value)", rf"{SOURCE}attention.attention.\2"
        ),
        *affine(f"{LAYER}attention/out", f"{SOURCE}attention.output.dense"),
        *affine(f"{LAYER}expand", f"{SOURCE}intermediate.dense"),
        *affine(f"{LAYER}shrink", f"{SOURCE}output.dense"),
        *norm(f"{LAYER}attention_norm", f"{SOURCE}layernorm_before"),
        *norm(f"{LAYER}feedforward_norm", f"{SOURCE}layernorm_after"),
        *norm("norm", "layernorm"),
    ),
    export=(
        'python -c "from transformers import ViTModel; ViTModel.from_pretrained('
        "'google/vit-base-patch16-224').save_pretrained('vit')\" writes "
        "vit/model.safetensors"
    ),
    renames=((r"^(module\.)?(vit\.)?", ""),),
)
