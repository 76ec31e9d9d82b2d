"""Formats the statistics of a feature file or an import as a text report."""

from collections.abc import Iterator, Mapping

import numpy as np

from mmfusion_jax.data.feature_files.emotion_labels import FLAGS
from mmfusion_jax.data.feature_files.findings import Findings, find_problems
from mmfusion_jax.data.feature_files.known_datasets import (
    POLARITIES,
    FeatureDatasetSpec,
    main_label,
)
from mmfusion_jax.data.feature_files.summary import (
    FileSummary,
    SplitStats,
    class_lines,
    header_lines,
    table_lines,
)
from mmfusion_jax.errors import shown_name
from mmfusion_jax.report import formatting
from mmfusion_jax.tasks import Multilabel, Regression, constant_baseline_scores


def format_report(found: FileSummary) -> str:
    """Returns the statistics, remarks and problems of a file as lines of text."""
    findings = find_problems(found)
    lines = [
        *header_lines(found),
        *table_lines(found),
        *class_lines(found),
        *label_summary(found.splits, found.spec),
    ]
    lines += finding_lines(findings)
    if findings.conclusion:
        lines.append(findings.conclusion)
    return "\n".join(lines)


def finding_lines(findings: Findings) -> list[str]:
    """Returns a line for each remark, each check that is missing, and each problem."""
    lines = [f"remark: {line}" for line in findings.remarks + findings.other_labels]
    lines += [f"not checked: {line}" for line in findings.unchecked]
    return lines + [f"problem: {line}" for line in findings.problems]


def label_summary(
    splits: Mapping[str, SplitStats], spec: FeatureDatasetSpec | None
) -> Iterator[str]:
    """Yields the distribution of the labels and the metrics of the constant baseline.

    Args:
        splits: Statistics of the splits.
        spec: Labels of the dataset; None for an unknown one.
    """
    for split, part in splits.items():
        for name, values in part.labels.items():
            what = _distribution(values, spec)
            yield f"  {split}: {shown_name(name)}: {what}"
    if spec is None:
        return
    label = main_label(spec, splits["train"].labels)
    task = None
    if label == FLAGS:
        task = Multilabel(label, spec.flags)
    elif spec.target is not None:
        task = Regression(label, spec.target)
    if task is None:
        return
    train, test = (splits[s].labels[label] for s in ("train", "test"))
    baseline = constant_baseline_scores(task, train, test)
    parts = [
        f"{shown_name(info.label)} "
        f"{formatting.score(info.shown, baseline.scores[name])}"
        for name, info in task.metrics().infos.items()
        if info.headline
    ]
    yield f"  baseline on test ({baseline.description}): {', '.join(parts)}"


def _distribution(values: np.ndarray, spec: FeatureDatasetSpec | None) -> str:
    """Returns the distribution of scores (n) or flags (n k) as text."""
    if values.ndim == 2:
        names = spec.flags if spec else [str(i) for i in range(values.shape[1])]
        means = zip(names, values.mean(axis=0), strict=True)
        return ", ".join(f"{shown_name(flag)} {mean:.3f}" for flag, mean in means)
    signs = [(values < 0).sum(), (values == 0).sum(), (values > 0).sum()]
    counts = ", ".join(
        f"{c:d} {shown_name(n)}" for c, n in zip(signs, POLARITIES, strict=True)
    )
    return f"{values.min():g} to {values.max():g}, mean {values.mean():.3f}; {counts}"
