"""Files of a work folder: what is written is read, and damage is one error."""

import copy
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import tiny_dataset

from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.report import write_report
from mmfusion_jax.report.console_summary import summary_lines
from mmfusion_jax.report.gradients import write_page
from mmfusion_jax.results.experiment_result import ExperimentResult, MeanStd
from mmfusion_jax.results.gradients_result import (
    GradientsResult,
    LossTerm,
    ModuleGradients,
)
from mmfusion_jax.results.json_file import as_read, dumps, read_json, write_json
from mmfusion_jax.results.metrics_file import (
    MetricsLine,
    drop_lines_after,
    read_metrics,
)
from mmfusion_jax.results.model_result import ModelResult
from mmfusion_jax.runner import experiment

WRONG = (None, "x", -1, 10**400, 1e308, True, [], {}, [[]], {"x": None})


@pytest.fixture(scope="module", params=["label", "score"])
def workdir(request, tmp_path_factory):
    """A finished experiment on classes, and one on numbers."""
    folder = tmp_path_factory.mktemp(request.param)
    asked = tiny_dataset.config(**{"train.epochs": 1, "data.label": request.param})
    if request.param == "score":
        asked.losses.task.name, asked.train.selection_metric = "mse", "mae"
    asked.pretrain_unimodal = ("video",)
    experiment.train(resolve(asked), folder, "a test")
    return folder


def damaged(value, path=()):
    """Yields copies of a JSON value, each with one field deleted or replaced."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        for wrong in WRONG:
            if wrong != item:
                changed = copy.copy(value)
                changed[key] = wrong
                yield (*path, key, wrong), changed
        if isinstance(value, dict):
            yield (*path, key, "deleted"), {k: v for k, v in items if k != key}
        if isinstance(item, dict | list):
            for where, inner in damaged(item, (*path, key)):
                changed = copy.copy(value)
                changed[key] = inner
                yield where, changed


def outcomes(path, read, use):
    """Reads every damaged version of a file; returns how many were refused, and all."""
    whole, refused, count = json.loads(path.read_text()), 0, 0
    for where, found in damaged(whole):
        path.write_text(json.dumps(found))
        count += 1
        try:
            result = read()
        except CheckpointError as error:
            assert str(path.name) in str(error), where
            assert len(str(error).splitlines()) == 2, where
            refused += 1
            continue
        try:
            use(result)
        except Exception as error:
            raise AssertionError(f"{where} is read, but not usable") from error
    path.write_text(json.dumps(whole))
    return refused, count


def test_a_damaged_result_is_refused_or_can_be_shown(workdir, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes((workdir / "result.json").read_bytes())

    def use(result: ExperimentResult) -> None:
        assert summary_lines(result)
        if use.calls % 40 == 0:  # the report takes a second
            write_report(workdir, replace(result, runs=list(result.runs)))
        use.calls += 1

    use.calls = 0
    read = lambda: read_json(path, ExperimentResult, "delete it")
    refused, count = outcomes(path, read, use)
    assert count > 1000 and refused > count / 2
