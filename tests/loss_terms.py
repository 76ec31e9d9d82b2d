"""Every loss term with the outputs that it reads, for tests of all terms."""

import math

import jax.numpy as jnp
import numpy as np
from loaded_tables import LOSSES

from mmfusion_jax.types import Array, Batch, Outputs

MODALITIES = ("text", "audio", "video")
PAIRS = {"one/text_audio": ("text", "audio"), "one/video_text": ("video", "text")}
ROWS = 16
ALIGNED = (4, 3)
"""Steps, and classes with the blank, of what CTC aligns."""

NUMBER, CLASS, FLAGS = {"label": "number"}, {"label": "class"}, {"label": "flags"}
LIST = {"modalities": MODALITIES}
OPTIONS = {
    "agnostic_adversary": LIST,
    "agnostic_adversary:joint": LIST | {"omega": "joint"},
    "agnostic_adversary:one": LIST | {"omega": "one"},
    "consistency": LIST,
    "consistency:flags": LIST | {"flags": True},
    "cross_entropy": CLASS,
    "cross_entropy:weighted": CLASS | {"class_weights": (0.5, 1.0, 2.0, 1.0)},
    "ctc": LIST,
    "exclusive_adversary": LIST,
    "gate_entropy": {},
    "gate_entropy:paper": {"form": "paper"},
    "hsic": LIST,
    "importance_discriminator": LIST,
    "info_nce": {"pairs": tuple(PAIRS)},
    "info_nce:oneway": {"pairs": tuple(PAIRS), "symmetric": False},
    "info_nce:other_class": {"pairs": tuple(PAIRS), "positives": "pair_other_class"}
    | NUMBER,
    "info_nce:same_class": {"pairs": tuple(PAIRS), "positives": "same_class"} | CLASS,
    "l1": NUMBER,
    "modality_contrast": LIST,
    "modality_contrast:sample": LIST | {"negatives": "same_sample"},
    "mse": NUMBER,
    "multilabel": FLAGS,
    "multiplicative": LIST | CLASS,
    "reconstruction": LIST,
    "difference_loss": LIST,
    "unimodal_losses": LIST | CLASS,
    "unimodal_losses:flags": LIST | FLAGS | {"kind": "multilabel"},
}
TERMS = {
    name: LOSSES[name.split(":")[0]](**options) for name, options in OPTIONS.items()
}
"""Name, and after the colon a variant -> the term."""

PREDICTIONS = {"l1": "score", "mse": "score"}
"""Term -> the array that is its prediction, where it is not the logits."""


def batch() -> Batch:
    """Sixteen examples: missing modalities, and two padding rows, unevenly spread."""
    masks = {name: np.ones((ROWS, 2), bool) for name in MODALITIES}
    masks["audio"][[3, 9]], masks["video"][[4, 9]], masks["text"][9] = (
        False,
        False,
        False,
    )
    weight = np.ones(ROWS, np.float32)
    weight[-2:] = 0
    rng = np.random.default_rng(0)
    return Batch(
        inputs={"noise": rng.normal(size=(ROWS, 6)).astype(np.float32)},
        masks=masks,
        labels={
            "class": np.arange(ROWS, dtype=np.int32) % 4,
            "number": rng.normal(size=ROWS).astype(np.float32).round(),
            "flags": rng.integers(0, 2, (ROWS, 2)).astype(np.int32),
        },
        weight=weight,
    )


def widths() -> dict[str, int]:
    """Every array that some term reads -> its width."""
    found = {"score": 1, "logits": 4, "gate": 3}
    for name in MODALITIES:
        found |= {f"logits/{name}": 4, f"exclusive/{name}": 5, f"agnostic/{name}": 3}
        found |= {
            f"discriminator/{kind}/{name}": 3 for kind in ("agnostic", "exclusive")
        }
        found[f"importance/{name}"] = 3
        found |= {f"pooled/{name}": 5, f"reconstruction/{name}": 5}
        found[f"ctc/{name}"] = math.prod(ALIGNED)
    return found | {f"{pair}/{side}": 5 for pair in PAIRS for side in "xy"}


def real_rows(name: str, batch: Batch) -> Array:
    """The rows in which the array `name` is defined, (b) bool."""
    for pair, modalities in PAIRS.items():
        if name.startswith(pair):
            return batch.has_modalities(*modalities)
    last = name.rsplit("/", 1)[-1]
    return batch.has_modalities(last) if last in MODALITIES else batch.has_modalities()


def outputs(arrays: dict[str, Array], batch: Batch, term: str) -> Outputs:
    """Outputs of a model with these arrays and the prediction that `term` reads."""
    prediction = arrays[PREDICTIONS.get(term, "logits")]
    valid = {
        f"{pair}/valid": batch.has_modalities(*both) for pair, both in PAIRS.items()
    }
    ctc = [f"ctc/{name}" for name in MODALITIES]
    aligned = {k: arrays[k].reshape(-1, *ALIGNED) for k in ctc}
    aligned |= {
        f"{k}/valid": jnp.ones((len(prediction), ALIGNED[0]), bool) for k in ctc
    }
    return Outputs(
        prediction[:, 0] if prediction.shape[1] == 1 else prediction,
        aux={**arrays, **valid, **aligned},
    )


def arrays(seed: int = 1) -> dict[str, Array]:
    """Random arrays of the right shapes, (b d) each."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=(ROWS, width)), jnp.float32)
        for name, width in widths().items()
    }
