"""Names of BERT's weights in files of the library transformers."""

from mmfusion_jax.weights.table import Rule, Table, kernel

LAYER = r"layer_(\d+)/"
THEIRS = r"encoder.layer.\1."
MODULES = (
    (r"attention/(query|key|value)", r"attention.self.\2"),
    ("attention/out", "attention.output.dense"),
    ("expand", "intermediate.dense"),
    ("shrink", "output.dense"),
)
NORMS = (
    ("attention_norm", "attention.output.LayerNorm"),
    ("feedforward_norm", "output.LayerNorm"),
)

BERT = Table(
    rules=(
        Rule("piece/embedding", "embeddings.word_embeddings.weight"),
        Rule("place/embedding", "embeddings.position_embeddings.weight"),
        Rule("segment/embedding", "embeddings.token_type_embeddings.weight"),
        Rule("norm/scale", "embeddings.LayerNorm.weight"),
        Rule("norm/bias", "embeddings.LayerNorm.bias"),
        *(
            rule
            for ours, theirs in MODULES
            for rule in (
                Rule(f"{LAYER}{ours}/kernel", f"{THEIRS}{theirs}.weight", kernel),
                Rule(f"{LAYER}{ours}/bias", f"{THEIRS}{theirs}.bias"),
            )
        ),
        *(
            rule
            for ours, theirs in NORMS
            for rule in (
                Rule(f"{LAYER}{ours}/scale", f"{THEIRS}{theirs}.weight"),
                Rule(f"{LAYER}{ours}/bias", f"{THEIRS}{theirs}.bias"),
            )
        ),
        Rule("pool/kernel", "pooler.dense.weight", kernel),
        Rule("pool/bias", "pooler.dense.bias"),
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
