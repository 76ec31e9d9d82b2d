"""Names of the scalars of gradients in `metrics.jsonl` and TensorBoard."""

NORM = "gradient_norm"
"""NORM/MODULE/TERM: norm of the gradient of a weighted loss term."""

SHARE = "gradient_share"
"""SHARE/MODULE/TERM: fraction of the sum of the norms of all terms, 0..1."""

COSINE = "gradient_cosine"
"""COSINE/MODULE/TERM/TERM: cosine between the gradients of two terms."""

CONFLICT = "gradient_conflict"
"""CONFLICT/MODULE/TERM/TERM: 1 if this cosine is negative, else 0."""
