"""How well modalities work together: the Multimodal Integration Score."""

from typing import Any

import numpy as np

from mmfusion_jax.metrics import pairs


def mis(
    p_fused: Any,
    p_modal: Any,
    labels: Any,
    weights: tuple[float, float, float] = (0.3, 0.3, 0.4),
    present: Any = None,
    soft: bool = False,
    entropy: bool = False,
) -> dict[str, float]:
    """The score "mis" and its parts "consistency", "confidence" and "accuracy".

        MIS = w_1 Consistency + w_2 Confidence + w_3 Accuracy

    Args:
        p_fused: (n k) probabilities of all modalities together.
        p_modal: (m n k) probabilities of every modality alone.
        labels: (n) int classes.
        weights: of the three parts; their sum is 1.
        present: (m n) bool, which modalities an example has; None: all.
        soft: consistency is the mean cosine of the probabilities, not the share of
            equal answers.
        entropy: confidence is 1 less the entropy over its highest value, not how far
            the highest probability is above the mean of the others.

    Raises:
        ValueError: the weights do not add up to 1.

    Source:
        Hetero-Fusion-Net, Eq. 11-17.
    """
    if abs(sum(weights) - 1) > 1e-6:
        raise ValueError(f"weights={weights} add up to {sum(weights):g}, not to 1.")
    fused, modal = np.asarray(p_fused, float), np.asarray(p_modal, float)
    there = np.ones(modal.shape[:2], bool) if present is None else np.asarray(present)
    alike = _cosine(modal, fused) if soft else modal.argmax(-1) == fused.argmax(-1)
    found = {
        "consistency": float(np.mean(alike[there])) if there.any() else 0.0,
        "confidence": float(np.mean(_certainty(fused) if entropy else _margin(fused))),
        "accuracy": pairs.accuracy(fused.argmax(-1), labels),
    }
    total = sum(w * v for w, v in zip(weights, found.values(), strict=True))
    return {"mis": total, **found}


def _cosine(modal: np.ndarray, fused: np.ndarray) -> np.ndarray:
    """The cosine of every modality's probabilities and those of all, (m n)."""
    lengths = np.linalg.norm(modal, axis=-1) * np.linalg.norm(fused, axis=-1)
    return np.sum(modal * fused, axis=-1) / np.maximum(lengths, 1e-12)


def _margin(p: np.ndarray) -> np.ndarray:
    """How far the highest probability is above the mean of the others, (n)."""
    top, k = p.max(-1), p.shape[-1]
    return top - (p.sum(-1) - top) / (k - 1)


def _certainty(p: np.ndarray) -> np.ndarray:
    """1 less the entropy over ln k, (n)."""
    terms = p * np.log(np.where(p > 0, p, 1))
    return 1 + terms.sum(-1) / np.log(p.shape[-1])
