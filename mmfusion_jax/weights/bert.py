"""Names of BERT's weights in files of the library transformers."""

from mmfusion_jax.weights.convert import NameRule, WeightMapping, affine, norm

LAYER = r"layer_(\d+)/"
THEIRS = r"encoder.layer.\1."

BERT = WeightMapping(
    rules=(
        NameRule("piece/embedding", "embeddings.word_embeddings.weight"),
        NameRule("place/embedding", "embeddings.position_embeddings.weight"),
        NameRule("segment/embedding", "embeddings.token_type_embeddings.weight"),
        *norm("norm", "embeddings.LayerNorm"),
        *affine(rf"{LAYER}attention/(query|key|value)", rf"{THEIRS}attention.self.\2"),
        *affine(f"{LAYER}attention/out", f"{THEIRS}attention.output.dense"),
        *affine(f"{LAYER}expand", f"{THEIRS}intermediate.dense"),
        *affine(f"{LAYER}shrink", f"{THEIRS}output.dense"),
        *norm(f"{LAYER}attention_norm", f"{THEIRS}attention.output.LayerNorm"),
        *norm(f"{LAYER}feedforward_norm", f"{THEIRS}output.LayerNorm"),
        *affine("pool", "pooler.dense"),
    ),
    export=(
        'python -c "from transformers import BertModel; BertModel.from_pretrained('
        "'bert-base-uncased').save_pretrained('bert')\" writes bert/model.safetensors"
    ),
    renames=(
        (r"^(module\.)?(bert\.)?", ""),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    ),
)
