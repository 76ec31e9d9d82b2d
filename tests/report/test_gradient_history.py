"""The report of gradients during training: conflicts, sentences, charts."""

import msgspec
import numpy as np
import pytest
import sample_results
from test_report import HOSTILE, Seen

from mmfusion_jax.report import write_report
from mmfusion_jax.report.gradient_history import conflicts, sentences
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.metrics_file import MetricsLine
from mmfusion_jax.training.gradient_record import gradient_scalars

TERMS = ("task", "contrast", "rare")


def records(count: int = 100, terms=TERMS, module: str = "encoders_video"):
    """In three of four records the first two terms conflict in one module."""
    lines = []
    for number in range(count):
        angle = -0.4 if number % 4 else 0.8
        cosines = np.eye(3)
        cosines[0, 1] = cosines[1, 0] = angle
        cosines[0, 2] = cosines[2, 0] = -0.9
        norms = {module: np.array([3.0, 1.0, 0.01]), "head": np.array([1.0, 0, 0])}
        norms["all"] = norms[module] + norms["head"]
        found = {module: cosines, "head": np.eye(3), "all": np.eye(3)}
        values = gradient_scalars(terms, norms, found)
        lines.append(MetricsLine(number + 1, "gradients", number / 10, values))
    return lines


def test_conflicts_are_counted_over_the_batches():
    found = conflicts(records(), ["all", "encoders_video", "head"], TERMS)
    rates = {(one.module, one.pair): one for one in found}
    assert list(rates)[0] == ("encoders_video", ("task", "rare"))
    one = rates["encoders_video", ("task", "contrast")]
    assert one.rate == 0.75
    assert one.cosine == pytest.approx(0.75 * -0.4 + 0.25 * 0.8)
    assert one.shares == pytest.approx((3 / 4.01, 1 / 4.01))
    # Without a gradient of the second term nothing is measured.
    assert ("head", ("task", "contrast")) not in rates
    # The other pair of the module has the smallest share: its conflict has no sentence.
    assert [*sentences(found)] == [
        "The gradients of task and contrast conflict in encoders_video in 75 % of the "
        "batches (mean cosine −0.10)."
    ]
    calm = [one for one in found if one.rate <= 0.5]
    assert "at most half of the batches" in next(sentences(calm))
    assert [*sentences([])] == []


def page(folder, lines) -> Seen:
    (folder / "metrics.jsonl").write_text("".join(line.dumps() for line in lines))
    result = msgspec.convert(sample_results.result(), ExperimentResult)
    return Seen(write_report(folder, result).read_text(encoding="utf-8"))


def test_the_section_has_charts_a_table_and_sentences(tmp_path):
    seen = page(tmp_path, records())
    assert "Gradients during training" in seen.text
    assert "conflict in encoders_video in 75 % of the batches" in seen.text
    labels = [value for name, value in seen.attributes if name == "aria-label"]
    charts = [
        x for x in labels if "over epochs" in x and ("share" in x or "cosine" in x)
    ]
    assert len(charts) == 4, "two of all modules, two of the one with several terms"
    assert "task from 0.748" in [x for x in charts if "encoders_video" in x][0]


def test_runs_without_records_have_no_section(tmp_path):
    assert "Gradients during training" not in page(tmp_path, []).text


def test_names_are_not_markup(tmp_path):
    terms = ("task", HOSTILE.replace("/", "|"), "rare")
    lines = records(4, terms, HOSTILE.replace("/", "|"))
    seen = page(tmp_path, lines)
    assert "script" not in seen.tags and "img" not in seen.tags
