"""Maps parameter names of BERT to those of the transformers library."""

from mmfusion_jax.weights.convert import NameRule, WeightMapping, affine, norm

LAYER = r"layer_(\d+)/"
SOURCE = r"encoder.layer.\1."

BERT = WeightMapping(
    rules=(
        NameRule("piece/embedding", "embeddings.word_embeddings.weight"),
        NameRule("place/embedding", "embeddings.position_embeddings.weight"),
        NameRule("segment/embedding", "embeddings.token_type_embeddings.weight"),
        *norm("norm", "embeddings.LayerNorm"),
        *affine(rf"{LAYER}attention/(query|key|value)", rf"{SOURCE}attention.self.\2"),
        *affine(f"{LAYER}attention/out", f"{SOURCE}attention.output.dense"),
        *affine(f"{LAYER}expand", f"{SOURCE}intermediate.dense"),
        *affine(f"{LAYER}shrink", f"{SOURCE}output.dense"),
        *norm(f"{LAYER}attention_norm", f"{SOURCE}attention.output.LayerNorm"),
        *norm(f"{LAYER}feedforward_norm", f"{SOURCE}output.LayerNorm"),
        *affine("pool", "pooler.dense"),
    ),
    export=(
        'python -c "from transformers import BertModel, BertTokenizer; '
        "name = 'bert-base-uncased'; "
        "BertModel.from_pretrained(name).save_pretrained('bert'); "
        "BertTokenizer.from_pretrained(name).save_vocabulary('bert')\" writes "
        "bert/model.safetensors and bert/vocab.txt"
    ),
    renames=(
        (r"^(module\.)?(bert\.)?", ""),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    ),
)

VOCABULARY_SIZES = {
    "bert-base-chinese": 21128,
    "bert-base-cased": 28996,
    "bert-base-uncased": 30522,
    "bert-base-multilingual-cased": 119547,
}
"""Published model -> size of its vocabulary, in increasing order."""
