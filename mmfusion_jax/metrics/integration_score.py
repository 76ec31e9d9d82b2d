"""The Multimodal Integration Score (MIS): how well modalities work together."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from mmfusion_jax.errors import ConfigError, join_names, shown, shown_name, suggest
from mmfusion_jax.metrics import functional
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.metrics.score_info import (
    Collected,
    Formula,
    ScoreInfo,
    by_name,
    compute,
)
from mmfusion_jax.option_types import Fraction
from mmfusion_jax.types import Array, Batch, Outputs

NEEDS = ("prediction", "truth", "alone", "present")
CONSISTENCY = {"hard": "consistency", "soft": "consistency_soft"}
CONFIDENCE = {"margin": "confidence", "entropy": "confidence_entropy"}


def _part(name: str, *, soft: bool = False, entropy: bool = False) -> Formula:
    """Returns a part of `mis` as a formula."""

    def formula(collected: Collected) -> float:
        logits = collected["prediction"], collected["alone"]
        fused, modal = (softmax(np.asarray(x, float), axis=-1) for x in logits)
        found = mis(
            fused,
            np.swapaxes(modal, 0, 1),
            collected["truth"],
            present=np.swapaxes(collected["present"], 0, 1),
            soft=soft,
            entropy=entropy,
        )
        return found[name]

    return formula


PARTS = by_name(
    ScoreInfo(
        "consistency",
        _part("consistency"),
        "Fraction of unimodal predictions, over all examples and the modalities they "
        "have, that equal the prediction of the fused model.",
        unit="",
        needs=NEEDS,
    ),
    ScoreInfo(
        "consistency_soft",
        _part("consistency", soft=True),
        "Mean cosine similarity of unimodal and fused probabilities, over all examples "
        "and the modalities they have.",
        unit="",
        needs=NEEDS,
    ),
    ScoreInfo(
        "confidence",
        _part("confidence"),
        "Mean of the highest probability minus the mean of the others.",
        unit="",
        needs=NEEDS,
    ),
    ScoreInfo(
        "confidence_entropy",
        _part("confidence", entropy=True),
        "1 - mean entropy of the probabilities / ln k.",
        unit="",
        needs=NEEDS,
    ),
)
"""Metrics that MIS can be made of, in addition to the accuracy."""

INTEGRATION_METRICS = frozenset({"mis", *PARTS})
"""Metrics that only models with unimodal predictions have."""


@dataclasses.dataclass(frozen=True)
class IntegrationScoreSpec:
    """The parts of the Multimodal Integration Score.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.metrics.IntegrationScoreSpec(
        ...     ("audio", "image"), consistency="soft"
        ... ).parts
        ('consistency_soft', 'confidence', 'accuracy')

    Attributes:
        modalities: Modalities whose unimodal predictions are compared.
        weights: Weights of consistency, confidence and accuracy; their sum is 1.
        consistency: "hard" compares classes, "soft" probabilities.
        confidence: "margin" above the other classes, or "entropy".

    Reference:
        Hetero-Fusion-Net, Eq. 11-17.
    """

    modalities: tuple[str, ...]
    weights: tuple[Fraction, ...] = (0.3, 0.3, 0.4)
    consistency: Literal["hard", "soft"] = "hard"
    confidence: Literal["margin", "entropy"] = "margin"

    def __post_init__(self):
        if len(self.weights) != 3 or abs(sum(self.weights) - 1) > 1e-6:
            raise ConfigError(
                "C18",
                f"config.mis.weights={shown(tuple(self.weights))} must be three "
                "numbers whose sum is 1.",
                "--config.mis.weights=0.3,0.3,0.4",
            )
        for field, known in (("consistency", CONSISTENCY), ("confidence", CONFIDENCE)):
            if (value := getattr(self, field)) not in known:
                raise ConfigError(
                    "C03",
                    f"config.mis.{shown_name(field)}={shown(value)} is unknown; "
                    f"{suggest(value, known)}",
                )

    @property
    def parts(self) -> tuple[str, str, str]:
        """The names of the three weighted metrics."""
        return CONSISTENCY[self.consistency], CONFIDENCE[self.confidence], "accuracy"

    @property
    def definition(self) -> str:
        """The weighted sum, in words."""
        listed = (
            f"{w:g} {shown_name(p)}"
            for w, p in zip(self.weights, self.parts, strict=True)
        )
        return f"Multimodal Integration Score: {' + '.join(listed)}."


@dataclasses.dataclass(frozen=True)
class IntegrationMetrics:
    """The metrics of a classifier with unimodal predictions.

    Example:
        >>> import mmfusion_jax as mmf
        >>> plain = mmf.metrics.ClassificationMetrics("digit", 10)
        >>> spec = mmf.metrics.IntegrationScoreSpec(("audio", "image"))
        >>> list(mmf.metrics.IntegrationMetrics(plain, spec).infos)[:3]
        ['mis', 'accuracy', 'uar']

    Attributes:
        plain: Metrics of the fused prediction.
        integration: The parts of MIS.
    """

    plain: ClassificationMetrics
    integration: IntegrationScoreSpec

    @property
    def infos(self) -> dict[str, ScoreInfo]:
        mis_info = ScoreInfo(
            "mis",
            self._mis,
            self.integration.definition,
            label="MIS",
            unit="",
            needs=NEEDS,
        )
        return by_name(mis_info, *self.plain.infos.values(), *PARTS.values())

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Returns what `plain` collects, unimodal logits (b m k) and presence (b m).

        Raises:
            ConfigError: The model has no unimodal predictions.
        """
        names = self.integration.modalities
        if missing := [m for m in names if f"logits/{m}" not in outputs.aux]:
            raise ConfigError(
                "C18",
                f"config.mis requires unimodal predictions of {join_names(missing)}, "
                "which the model does not produce.",
                "remove config.mis and set another train.selection_metric, or use a "
                "model with unimodal heads",
            )
        return {
            **self.plain.collect(outputs, batch),
            "alone": jnp.stack([outputs.aux[f"logits/{m}"] for m in names], axis=1),
            "present": jnp.stack([batch.has_modalities(m) for m in names], axis=1),
        }

    def scores(self, collected: Collected) -> dict[str, float]:
        """Returns the metrics of a split; those of `plain` without "alone"."""
        return compute(self.infos.values(), collected)

    def _mis(self, collected: Collected) -> float:
        known = {**self.plain.infos, **PARTS}
        spec = self.integration
        return sum(
            weight * known[part].formula(collected)
            for weight, part in zip(spec.weights, spec.parts, strict=True)
        )


def mis(
    p_fused: Any,
    p_modal: Any,
    labels: Any,
    weights: tuple[float, ...] = (0.3, 0.3, 0.4),
    present: Any = None,
    soft: bool = False,
    entropy: bool = False,
) -> dict[str, float]:
    """Returns "mis" and its parts "consistency", "confidence" and "accuracy".

        MIS = w_1 Consistency + w_2 Confidence + w_3 Accuracy

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> p = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> scores = mmf.metrics.mis(p, np.stack([p, p[::-1]]), np.array([0, 1]))
        >>> {name: round(float(score), 2) for name, score in scores.items()}
        {'mis': 0.76, 'consistency': 0.5, 'confidence': 0.7, 'accuracy': 1.0}

    Args:
        p_fused: Probabilities of the fused model, (n k).
        p_modal: Probabilities of every modality alone, (m n k).
        labels: Classes, (n) int.
        weights: Weights of the three parts; their sum is 1.
        present: Presence of the modalities, (m n) bool; None for all.
        soft: Consistency is the mean cosine similarity of the probabilities instead of
            the fraction of equal classes.
        entropy: Confidence is 1 - entropy / maximum entropy instead of the highest
            probability minus the mean of the others.

    Raises:
        ValueError: The sum of the weights is not 1.

    Reference:
        Hetero-Fusion-Net, Eq. 11-17.
    """
    if abs(sum(weights) - 1) > 1e-6:
        raise ValueError(
            f"weights={shown(weights)} add up to {sum(weights):g}, not to 1."
        )
    fused, modal = np.asarray(p_fused, float), np.asarray(p_modal, float)
    valid = np.ones(modal.shape[:2], bool) if present is None else np.asarray(present)
    agrees = _cosine(modal, fused) if soft else modal.argmax(-1) == fused.argmax(-1)
    found = {
        "consistency": float(np.mean(agrees[valid]))
        if valid.any()
        else functional.UNDEFINED,
        "confidence": float(np.mean(_certainty(fused) if entropy else _margin(fused))),
        "accuracy": functional.accuracy(fused.argmax(-1), labels),
    }
    total = sum(w * v for w, v in zip(weights, found.values(), strict=True))
    return {"mis": total, **found}


def _cosine(modal: np.ndarray, fused: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of unimodal and fused probabilities, (m n)."""
    lengths = np.linalg.norm(modal, axis=-1) * np.linalg.norm(fused, axis=-1)
    return np.sum(modal * fused, axis=-1) / np.maximum(lengths, 1e-12)


def _margin(p: np.ndarray) -> np.ndarray:
    """Returns the highest probability minus the mean of the others, (n)."""
    top, k = p.max(-1), p.shape[-1]
    return top - (p.sum(-1) - top) / (k - 1)


def _certainty(p: np.ndarray) -> np.ndarray:
    """Returns 1 - entropy / ln k, (n)."""
    # 0 ln 0 is 0.
    terms = p * np.log(np.where(p > 0, p, 1))
    return 1 + terms.sum(-1) / np.log(p.shape[-1])
