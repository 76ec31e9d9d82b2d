"""The numbers in docs/papers.md, recomputed from what the papers print."""

import math

import pytest
from paths import ROOT

from mmfusion_jax.metrics.integration_score import IntegrationScoreSpec
from mmfusion_jax.models import MODELS

PAGE = (ROOT / "docs" / "papers.md").read_text("utf-8")
TABLE_3 = {
    "Hetero-Fusion-Net": (0.8567, 0.8934, 0.9181),
    "late fusion": (0.6823, 0.7145, 0.7734),
}
"""Consistency, confidence and accuracy of Hetero-Fusion-Net's Table 3."""

STATED = IntegrationScoreSpec(("text",)).weights
THIRDS = (1 / 3, 1 / 3, 1 / 3)
FITTED = (0.345, 0.315, 0.34)


def mis(weights: tuple[float, ...], method: str) -> str:
    total = sum(w * x for w, x in zip(weights, TABLE_3[method], strict=True))
    return f"{total:.4f}".removeprefix("0")


def largest_weight(steps: int, mu: float) -> float:
    """The largest weight by MEA's Eq. 2 if the predicted map is 0."""
    top = math.exp(1 - mu)
    return top / (top + steps - 1)


def never(positives: int, examples: int = 938) -> str:
    """Accuracy and weighted F1 of a flag that is always predicted as 0, in percent."""
    accuracy = (examples - positives) / examples
    return (
        f"{100 * accuracy:.1f} / {100 * accuracy * 2 * accuracy / (1 + accuracy):.1f}"
    )


WAL = [(steps * 40) ** 2 for steps in (50, 375, 500)]
BLOCK = 131_136 + 4_096 + 250_048 + 65
COMPUTED = {
    "its own components give": f"{mis(STATED, 'Hetero-Fusion-Net')} and "
    f"{mis(STATED, 'late fusion')}",
    "equal thirds": f"{mis(THIRDS, 'Hetero-Fusion-Net')} and "
    f"{mis(THIRDS, 'late fusion')}",
    "26.30M - 25.92M =": f"{26.30 - 25.92:.2f}M",
    "the released code:": f"{BLOCK:,}",
    "25,916,072 - 250,048 =": f"{25_916_072 - 250_048:,}",
    "the two encoders alone (": f"{25_865_664 + 20_704:,})",
    "75.76 - 73.86 =": f"{75.76 - 73.86:.2f}",
    "largest weight of one of 50 steps is": f"{largest_weight(50, 0.25):.3f}"[1:],
    "of 500 steps": f"{largest_weight(500, 0.15):.4f}"[1:],
    "weights |": f"{WAL[0]:,}, {WAL[1]:,} and {WAL[2]:,}",
    "audio and video of MOSI,": f"{3 * sum(WAL):,}",
    'a constant "no" has': ", ".join(map(never, (135, 193, 227))),
    "MEA's 87.5 for happy is": f"{87.5 - 85.6:.1f}",
    "Acc_2:": f"{84.4 - 72.7:.1f} and {84.4 - 75.9:.1f} points on MOSI, "
    f"{85.2 - 75.4:.1f} and {85.2 - 79.3:.1f} on MOSEI",
    "neutral of IEMOCAP:": f"{65.6 - 62.0:.1f} and {65.6 - 49.4:.1f}",
    "16,326 + 1,871 + 4,659 =": f"{16_326 + 1_871 + 4_659:,}",
    "3 * 254^2 =": f"{3 * 254**2:,}",
    "parameters | of": f"{3 * 254**2 * 128 + 128 + 3 * (9 + 1):,}",
    "the harmonic mean is": f"{2 * 94.8 * 93.2 / (94.8 + 93.2):.2f}",
    "their mean in Table 1 is right,": f"{(93.2 + 94.5 + 94.6) / 3:.1f}",
}
"""Text of the page -> the number that follows it."""


@pytest.mark.parametrize("text", COMPUTED)
def test_the_page_has_the_recomputed_number(text):
    assert f"{text} {COMPUTED[text]}".replace("( ", "(") in PAGE


def test_no_stated_weights_give_the_printed_scores():
    printed = {"Hetero-Fusion-Net": ".8891", "late fusion": ".7234"}
    assert STATED == (0.3, 0.3, 0.4) and sum(FITTED) == pytest.approx(1)
    for method, score in printed.items():
        assert mis(STATED, method) != score == mis(FITTED, method)
    assert mis(THIRDS, "late fusion") == ".7234"


def test_a_method_that_is_built_is_not_listed_as_missing():
    rows = PAGE.split("| method | paper, table |")[1].splitlines()[2:]
    names = [row.split("|")[1].split("(")[0].strip() for row in rows if row]
    assert len(names) > 20 and len(set(names)) == len(names)
    keys = {name.lower().replace("-", "_") for name in names}
    assert not keys & MODELS.keys()
