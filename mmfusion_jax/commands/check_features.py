"""What a file of features or an imported data set holds, as a page of text."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.importer import find_problems
from mmfusion_jax.data.feature_files.known_datasets import (
    FEATURE_DATASETS,
    POLARITIES,
    FeatureDatasetSpec,
)
from mmfusion_jax.data.feature_files.summary import header_lines, table_lines
from mmfusion_jax.report import formatting
from mmfusion_jax.tasks import Multilabel, Regression, constant_baseline_scores

JSON = Any


def format_report(found: Mapping[str, JSON]) -> str:
    """The whole examination of what `import_file.examine` found."""
    kind = FEATURE_DATASETS.get(found["name"])
    wrong, remarks = find_problems(found)
    lines = [
        *header_lines(found),
        *table_lines(found),
        *label_summary(found["report"], kind),
    ]
    lines += [f"remark: {one}" for one in remarks]
    lines += [f"problem: {one}" for one in wrong] or ["no problem was found"]
    return "\n".join(lines)


def label_summary(
    report: Mapping[str, JSON], kind: FeatureDatasetSpec | None
) -> Iterator[str]:
    """Yields the distribution of the labels and the metrics of the constant baseline.

    Args:
        report: Statistics of the splits.
        kind: What is known of the data set; None for one that is not known.
    """
    for split, part in report.items():
        for name, values in part["labels"].items():
            yield f"  {split}: {name}: {_spread(name, np.array(values), kind)}"
    task = None
    if kind is not None and kind.flags:
        task = Multilabel(kind.label, kind.flags)
    elif kind is not None and kind.target is not None:
        task = Regression(kind.label, kind.target)
    if kind is None or task is None:
        return
    train, test = (np.array(report[s]["labels"][kind.label]) for s in ("train", "test"))
    baseline, scores = constant_baseline_scores(task, train, test)
    shown = [
        f"{info.label} {formatting.score(info.to_json(), scores[name])}"
        for name, info in task.metrics().infos.items()
        if info.headline
    ]
    yield f"  baseline on test ({baseline}): {', '.join(shown)}"


def _spread(name: str, values: np.ndarray, kind: FeatureDatasetSpec | None) -> str:
    """How often each answer is right."""
    if values.ndim == 2:
        names = kind.flags if kind else [str(i) for i in range(values.shape[1])]
        shares = zip(names, values.mean(axis=0), strict=True)
        return ", ".join(f"{flag} {share:.3f}" for flag, share in shares)
    signs = [(values < 0).sum(), (values == 0).sum(), (values > 0).sum()]
    counts = ", ".join(f"{c} {n}" for c, n in zip(signs, POLARITIES, strict=True))
    return f"{values.min():g} to {values.max():g}, mean {values.mean():.3f}; {counts}"
