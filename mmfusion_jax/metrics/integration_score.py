"""How well modalities work together: the Multimodal Integration Score."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.metrics import functional
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.types import Array, Batch, Outputs

DEFINITIONS = {
    "mis": "Multimodal Integration Score: consistency, confidence and accuracy, "
    "weighted",
    "consistency": "over all examples and the modalities they have: share of "
    "modalities whose own answer is that of all together",
    "consistency_soft": "the same mean of the cosine of the probabilities of the "
    "modality alone and of all together",
    "confidence": "mean of the highest probability less the mean of the others",
    "confidence_entropy": "1 - mean entropy of the probabilities / ln k",
}
CONSISTENCY = {"hard": "consistency", "soft": "consistency_soft"}
CONFIDENCE = {"margin": "confidence", "entropy": "confidence_entropy"}


@dataclasses.dataclass(frozen=True)
class IntegrationScoreSpec:
    """What the Multimodal Integration Score is made of.

    Attributes:
        modalities: whose own answers count.
        weights: of consistency, confidence and accuracy; their sum is 1.
        consistency: "hard", of the answers, or "soft", of the probabilities.
        confidence: "margin" above the other classes, or "entropy".

    Source:
        Hetero-Fusion-Net, Eq. 11-17.
    """

    modalities: tuple[str, ...]
    weights: tuple[float, ...] = (0.3, 0.3, 0.4)
    consistency: Literal["hard", "soft"] = "hard"
    confidence: Literal["margin", "entropy"] = "margin"

    def __post_init__(self):
        if len(self.weights) != 3 or abs(sum(self.weights) - 1) > 1e-6:
            raise ConfigError(
                "C18",
                f"config.mis.weights={tuple(self.weights)} are not three numbers "
                "whose sum is 1.",
                "--config.mis.weights=0.3,0.3,0.4",
            )
        for field, known in (("consistency", CONSISTENCY), ("confidence", CONFIDENCE)):
            if (value := getattr(self, field)) not in known:
                raise ConfigError(
                    "C03",
                    f"config.mis.{field}={value!r} is unknown; {suggest(value, known)}",
                )

    @property
    def parts(self) -> tuple[str, str, str]:
        """The names of the three scores."""
        return CONSISTENCY[self.consistency], CONFIDENCE[self.confidence], "accuracy"

    @property
    def formula(self) -> str:
        """MIS in words, exactly."""
        terms = (f"{w:g} {p}" for w, p in zip(self.weights, self.parts, strict=True))
        return f"Multimodal Integration Score: {' + '.join(terms)}"


@dataclasses.dataclass(frozen=True)
class IntegrationMetrics:
    """The scores of a classifier whose modalities have answers of their own.

    Attributes:
        plain: of the answers of all modalities together.
        integration: what MIS is made of.
    """

    plain: ClassificationMetrics
    integration: IntegrationScoreSpec

    @property
    def DEFINITIONS(self) -> Mapping[str, str]:
        exact = DEFINITIONS | {"mis": self.integration.formula}
        return {**self.plain.DEFINITIONS, **exact}

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """What `plain` collects; every modality's logits (b m k) and presence (b m).

        Raises:
            ConfigError: the model has no heads of single modalities.
        """
        names = self.integration.modalities
        if lacking := [m for m in names if f"logits/{m}" not in outputs.aux]:
            raise ConfigError(
                "C18",
                f"config.mis needs what {', '.join(lacking)} says alone, and the model "
                "has no such head.",
                "leave config.mis out and choose by another score, "
                "or take a model with heads of single modalities",
            )
        return {
            **self.plain.collect(outputs, batch),
            "alone": jnp.stack([outputs.aux[f"logits/{m}"] for m in names], axis=1),
            "present": jnp.stack([batch.has_modalities(m) for m in names], axis=1),
        }

    def scores(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The scores of `DEFINITIONS`; those of `plain` where nothing is said alone."""
        found = self.plain.scores(collected)
        if "alone" not in collected:
            return found
        fused = softmax(np.asarray(collected["prediction"], float), axis=-1)
        alone = softmax(np.asarray(collected["alone"], float), axis=-1)
        there = np.swapaxes(collected["present"], 0, 1)
        data = fused, np.swapaxes(alone, 0, 1), collected["truth"]
        how = self.integration
        hard = mis(*data, present=there)
        soft = mis(*data, present=there, soft=True, entropy=True)
        found |= {
            "consistency": hard["consistency"],
            "consistency_soft": soft["consistency"],
            "confidence": hard["confidence"],
            "confidence_entropy": soft["confidence"],
        }
        total = sum(w * found[p] for w, p in zip(how.weights, how.parts, strict=True))
        return {"mis": total, **found}

    def confusion(self, collected: Mapping[str, np.ndarray]) -> np.ndarray:
        """How often each class was taken for each, (k true, k said)."""
        return self.plain.confusion(collected)


def mis(
    p_fused: Any,
    p_modal: Any,
    labels: Any,
    weights: tuple[float, ...] = (0.3, 0.3, 0.4),
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
        "accuracy": functional.accuracy(fused.argmax(-1), labels),
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
