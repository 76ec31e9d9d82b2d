"""Every public name has one example in its docstring, and it runs."""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_results
from groups import in_ci
from paths import ROOT
from public_names import PACKAGES, public

from mmfusion_jax.results.json_file import write_json
from mmfusion_jax.results.metrics_file import MetricsLine
from mmfusion_jax.results.predictions_file import write_predictions

OPTIONS = doctest.NORMALIZE_WHITESPACE
WITHOUT = {
    "mmfusion_jax:AUX",
    "mmfusion_jax:Streams",
    "mmfusion_jax.data:Example",
    "mmfusion_jax.metrics:MACRO_F1_ALL_CLASSES",
    "mmfusion_jax.metrics:MACRO_PRECISION_ALL_CLASSES",
    "mmfusion_jax.metrics:MACRO_RECALL_ALL_CLASSES",
    "mmfusion_jax.metrics:RMSE",
}
"""Type aliases and constants, which have no docstring."""

FAST = (
    "mmfusion_jax:Batch",
    "mmfusion_jax:Outputs",
    "mmfusion_jax:Tokens",
    "mmfusion_jax:UserError",
    "mmfusion_jax:base_config",
    "mmfusion_jax:read_result",
    "mmfusion_jax:resolve",
    "mmfusion_jax.data:Dataset",
    "mmfusion_jax.data:InMemory",
    "mmfusion_jax.data:ModalityDropout",
    "mmfusion_jax.datasets:ravdess",
    "mmfusion_jax.encoders:Precomputed",
    "mmfusion_jax.layers:Attention",
    "mmfusion_jax.losses:L1",
    "mmfusion_jax.metrics:SentimentMetrics",
    "mmfusion_jax.metrics:paired_test",
    "mmfusion_jax.ops:zero_masked",
    "mmfusion_jax.results:read_predictions",
    "mmfusion_jax.testing:Report",
    "mmfusion_jax.testing:check_fusion",
)
"""Names whose examples run in the default group; the others compile more."""


def described() -> dict[str, Any]:
    """Package and name -> what the public name refers to; each object once."""
    found, seen = {}, set()
    for package in PACKAGES:
        for name, path in public(package).items():
            key = f"{package}:{name}"
            if path not in PACKAGES and path not in seen and key not in WITHOUT:
                found[key] = getattr(importlib.import_module(package), name)
            seen.add(path)
    return found


DESCRIBED = described()


def examples(value: Any) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with one finished run."""
    workdir = tmp_path_factory.mktemp("examples") / "runs" / "cfn_sr"
    workdir.mkdir(parents=True)
    write_json(workdir / "result.json", sample_results.result())
    write_json(workdir / "run.json", sample_results.entry(0.75))
    write_json(workdir / "predictor.json", sample_results.predictor())
    write_json(workdir / "calibration.json", sample_results.calibration())
    truth, logits = np.arange(2), np.eye(2, dtype=np.float32)
    write_predictions(workdir, ["test/0", "test/1"], truth, logits)
    line = MetricsLine(20, "train", epoch=0.5, values={"loss": 1.25})
    (workdir / "metrics.jsonl").write_text(line.dumps(), encoding="utf-8")
    return workdir.parents[1]


@pytest.mark.parametrize("key", DESCRIBED)
def test_every_public_name_has_an_example(key):
    value = DESCRIBED[key]
    text = value.__doc__ or ""
    assert text.count("Example:\n") == 1
    assert "doctest: +SKIP" not in text
    steps = examples(value)
    assert steps[0].source.startswith("import ") or steps[0].source.startswith("from ")
    assert any(step.source == "import mmfusion_jax as mmf\n" for step in steps)
    name = key.partition(":")[2]
    called = "".join(step.source for step in steps)
    uses = f"mmf.{name}" in called or f".{name}" in called
    shown = isinstance(value, type) and name in REACHED
    assert uses or shown, f"the example of {key} does not use it"
    assert any(step.want for step in steps)
    assert all("mmfusion_jax." not in step.source for step in steps)


REACHED = {
    "GradientSimilarity": "gradient_similarity returns it",
    "ExperimentResult": "read_result returns it",
    "RunResult": "read_result returns it",
    "ModelResult": "read_result returns it",
    "Predictor": "load returns it",
    "PredictorInfo": "read_predictor returns it",
    "RunIdentity": "read_result returns it",
    "TrainState": "create_state returns it",
}
"""Classes that users get from a function instead of creating them."""


@pytest.mark.parametrize("key", in_ci(DESCRIBED, *FAST))
def test_the_example_runs(key, folder, cache_dir, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MMFUSION_CACHE", str(cache_dir / "digits"))
    test = doctest.DocTest(
        examples(DESCRIBED[key]), {}, key, None, 0, inspect.getdoc(DESCRIBED[key])
    )
    told: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=told.append)
    assert not told, "".join(told)


def snippets() -> list[str]:
    """Python code of the README."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.ci
@pytest.mark.parametrize("code", snippets())
def test_the_code_of_the_readme_runs(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(code, {})


def test_readme_and_notebooks_use_public_names_only():
    codes = snippets()
    assert codes
    names = [path for path in (ROOT / "notebooks").glob("*.py")]
    others = ("build", "install_cell")
    codes += [path.read_text("utf-8") for path in names if path.stem not in others]
    for code in codes:
        imports = re.findall(r"^ *(?:from|import) mmfusion_jax.*$", code, re.MULTILINE)
        assert imports == ["import mmfusion_jax as mmf"]


def test_a_wrong_example_is_found():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=told.append)
    assert "Expected" in "".join(told)
