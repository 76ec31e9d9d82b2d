"""experiments/bench/accelerator.py: the comparison, the rows, and a run with --tiny."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "experiments/bench"
sys.path.append(str(FOLDER))

import accelerator  # noqa: E402
import compile_tpu  # noqa: E402
import measured_rows  # noqa: E402
import paper_steps  # noqa: E402
import parity  # noqa: E402
import parity_cases  # noqa: E402
import step_times  # noqa: E402
from accelerator_info import PEAKS, peak_flops  # noqa: E402
from accelerator_table import markdown  # noqa: E402
from measured_rows import (  # noqa: E402
    DIFFERS,
    DONE,
    FAILED,
    NO_TIME,
    STOPPED,
    Row,
    RowFile,
    run_rows,
)

HIGHEST = parity.VARIANTS[0]


def case(name: str) -> parity_cases.Case:
    return next(c for c in parity_cases.CASES if c.name == name)


def test_every_public_function_of_ops_has_a_case():
    functions = {*parity_cases.public_functions()}
    assert len(functions) > 40
    covered = {c.function for c in parity_cases.CASES}
    assert not functions - covered - {*parity_cases.EXEMPT}
    # Nothing is exempt that has a case or is gone; the class is not a function.
    assert not {*parity_cases.EXEMPT} & covered
    gone = (covered | {*parity_cases.EXEMPT}) - functions
    assert gone == {"packed_sequences.PackedSequences"}


def test_every_case_and_paper_has_stored_values():
    stored = parity.read_reference()
    names = {f"op {c.name}" for c in parity_cases.CASES}
    names |= {f"paper {p.name}" for p in paper_steps.DIGITS}
    assert stored.keys() == names
    assert parity.REFERENCE.stat().st_size < 2_000_000
    assert all(np.all(np.isfinite(x)) for c in stored.values() for x in c.values())


@pytest.mark.ci
@pytest.mark.parametrize("name", [c.name for c in parity_cases.CASES])
def test_ops_have_the_stored_values(name):
    figures = parity.compare_op(case(name), HIGHEST, parity.read_reference())
    assert figures["error"] < HIGHEST.op


def test_a_wrong_op_is_found(monkeypatch):
    from mmfusion_jax.ops import contrastive

    right, stored = contrastive.l2_normalize, parity.read_reference()
    name = "contrastive.l2_normalize"
    assert parity.compare_op(case(name), HIGHEST, stored)["error"] < 1e-6
    monkeypatch.setattr(contrastive, "l2_normalize", lambda x: 1.0001 * right(x))
    with pytest.raises(measured_rows.Different) as found:
        parity.compare_op(case(name), HIGHEST, stored)
    assert found.value.figures["error"] == pytest.approx(1e-4, rel=0.1)


def test_a_wrong_gradient_is_found(monkeypatch):
    import jax

    from mmfusion_jax.ops import masking

    right = masking.masked_mean
    blocked = lambda x, mask, axis: right(
        0.9 * x + 0.1 * jax.lax.stop_gradient(x), mask, axis
    )
    monkeypatch.setattr(masking, "masked_mean", blocked)
    with pytest.raises(measured_rows.Different) as found:
        parity.compare_op(case("masking.masked_mean"), HIGHEST, parity.read_reference())
    assert found.value.figures["where"] == "gradient x"


def test_nan_and_a_small_leaf():
    stored = {
        "output 0": np.ones(3),
        "gradient x": np.ones(2),
        "gradient y": np.zeros(2),
    }
    found = stored | {"gradient y": np.full(2, 1e-6)}
    # On the scale of the other gradient, not of its own zeros.
    assert parity.errors(found, stored)["gradient y"] == pytest.approx(1e-3)
    lower = parity.errors(found, stored, smallest=1e-2)
    assert lower["gradient y"] == pytest.approx(1e-4)
    found = stored | {"output 0": np.array([1, np.nan, 1])}
    with pytest.raises(measured_rows.Different) as error:
        parity.compare(found, stored, 1.0)
    assert error.value.figures["where"] == "output 0"


def header() -> dict:
    same = {"device": "T4", "platform": "gpu", "count": 1, "packages": {}}
    same |= {"commit": "", "tiny": True}
    return {"same": same, "plugin": "", "driver": "", "changed_files": [""]}


def test_rows_are_kept_and_the_others_follow(tmp_path):
    path, calls = tmp_path / "rows.json", []

    def figures(name, error=None):
        calls.append(name)
        if error:
            raise error
        return {"error": 0.0, "where": "output 0", "tolerance": 1.0}

    exhausted = RuntimeError("RESOURCE_EXHAUSTED: 3 GB")
    names = "op/a/float32", "op/b/float32", "op/c/float32", "op/d/float32"
    rows = [
        Row(names[0], 0, lambda: figures("a")),
        Row(names[1], 0, lambda: figures("b", ValueError("broken"))),
        Row(names[2], 0, lambda: figures("c", exhausted)),
        Row(names[3], 100, lambda: figures("d")),
    ]
    file = RowFile(path, header(), names)
    # All rows are in the file before the first one is measured.
    assert [r["state"] for r in json.loads(path.read_text())["rows"].values()] == (
        [NO_TIME] * 4
    )
    run_rows(rows, file, seconds=50)
    states = [file.state(name) for name in names]
    assert states == [DONE, FAILED, measured_rows.OUT_OF_MEMORY, NO_TIME]
    table = markdown(json.loads(path.read_text()))
    assert "| ops, float32 | not run: out of time | 1 |" in table
    # Another call, with more time: a and c are kept; b, which failed, comes last.
    run_rows(rows, RowFile(path, header(), names), seconds=500)
    assert calls == ["a", "b", "c", "d", "b"]


def test_a_file_of_another_machine_is_not_continued(tmp_path):
    path = tmp_path / "rows.json"
    RowFile(path, header(), ["op/a/float32"])
    other = header()
    other["same"] = other["same"] | {"device": "H200"}
    with pytest.raises(SystemExit, match="device 'T4'.*'H200'"):
        RowFile(path, other, ["op/a/float32"])


SLOW_ROW = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from measured_rows import Row, RowFile, run_rows
rows = [Row("op/a/x", 0, lambda: {}), Row("op/b/x", 0, lambda: time.sleep(60))]
file = RowFile(Path(sys.argv[2]), {"same": {}}, [row.name for row in rows])
run_rows(rows, file, 0.5, lambda: print("the table"))
"""


def test_a_row_that_takes_too_long_ends_the_process(tmp_path):
    path = tmp_path / "rows.json"
    command = [sys.executable, "-c", SLOW_ROW, str(FOLDER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == measured_rows.EXIT_STOPPED
    assert done.stdout.endswith("the table\n")
    rows = json.loads(path.read_text())["rows"]
    assert [row["state"] for row in rows.values()] == [DONE, STOPPED]


class Built(Exception):
    """A step, instead of its values."""


def built_step(*args):
    raise Built(paper_steps.build_step(*args))


@pytest.mark.parametrize("variant", parity.VARIANTS, ids=lambda v: v.name)
@pytest.mark.parametrize("module", [parity, step_times], ids=["parity", "step_times"])
def test_products_have_the_precision_of_the_row(module, variant, monkeypatch):
    import jax

    from mmfusion_jax.analysis.cost import find_products

    monkeypatch.setattr(module, "build_step", built_step)
    paper = next(p for p in paper_steps.SMALL if p.name == "cfn_sr")
    with pytest.raises(Built) as found:
        if module is parity:
            parity.compare_paper(paper, variant, parity.read_reference())
        else:
            step_times.measure_step(paper, variant.dtype, variant.precision)
    (made,) = found.value.args
    step = jax.jit(made.parts.train_step(None)).trace(made.state, made.batch)
    products = find_products(step.jaxpr.jaxpr)
    # The prediction head is computed in float32 and at the highest precision always.
    head = {p.precision for p in products if p.module.endswith("/head")}
    body = {p.precision for p in products if not p.module.endswith("/head")}
    assert (head, body) == ({"highest"}, {variant.precision})
    dtypes = {p.dtype for p in products if not p.module.endswith("/head")}
    assert variant.dtype in dtypes


def test_steps_have_both_precisions_of_float32():
    options = accelerator.parse(["--stages=step"])
    variants = [row.name.split("/")[-1] for row in accelerator.steps(options)]
    assert [*dict.fromkeys(variants)] == [
        *("bfloat16 default", "float32 highest", "float32 default")
    ]


def test_cfn_sr_has_rows_with_and_without_remat():
    from mmfusion_jax.config.load import load_config
    from mmfusion_jax.config.resolve import resolve

    options = accelerator.parse(["--stages=step"])
    found = [row.name for row in accelerator.steps(options) if "cfn_sr" in row.name]
    assert len({*found}) == 6
    assert len([name for name in found if "remat" in name]) == 3
    (changes,) = (p.changes for p in paper_steps.PAPERS if "remat" in p.shapes)
    config = load_config(f"{paper_steps.CONFIGS}/cfn_sr.py:ravdess")
    config = config.copy_and_resolve_references().unlock()
    config.update_from_flattened_dict(changes)
    assert resolve(config).model.encoders["video"].build().remat
    words = compile_tpu.parse(["--paper=cfn_sr", "--chip=v5e", "--dtype=bfloat16"])
    rows = dict(compile_tpu.commands(words))
    assert [*rows] == [
        "cfn_sr:digits bfloat16 v5e",
        "cfn_sr:ravdess bfloat16 v5e",
        "cfn_sr:ravdess bfloat16 v5e remat",
    ]
    plain, changed = list(rows.values())[1:]
    assert changed == [*plain, "--config.model.encoders.video.remat=True"]


def test_peaks_of_devices():
    assert peak_flops("NVIDIA H200", "bfloat16", "default") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-40GB", "float32", "default") == 156e12
    assert peak_flops("NVIDIA A100-SXM4-40GB", "float32", "high") == 156e12
    assert peak_flops("NVIDIA A100-SXM4-40GB", "float32", "highest") == 19.5e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32", "highest") == 67e12
    assert peak_flops("TPU v5 lite", "bfloat16", "highest") == 197e12
    assert peak_flops("TPU v5 lite", "float32", "default") == 197e12
    assert peak_flops("TPU v5 lite", "float32", "highest") == 197e12 / 6
    assert peak_flops("NVIDIA L40S", "bfloat16", "default") is None
    assert peak_flops("Tesla T4", "bfloat16", "default") is None
    assert peak_flops("Tesla T4", "float32", "default") == 8.1e12
    assert peak_flops("cpu", "float32", "default") is None
    assert all(max(peaks.values()) < 1e4 for peaks in PEAKS.values())


@pytest.mark.slow
def test_all_stages_with_tiny_shapes(tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, FOLDER / "accelerator.py", "--tiny", "--minutes=40"]
    command += [f"--out={out}", f"--profile={tmp_path / 'traces'}"]
    # As users compile; the bounds of bfloat16 are of that.
    as_users = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
    settings = {**os.environ, **as_users}
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    assert not done.returncode, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    states = {name: row["state"] for name, row in rows.items()}
    assert {*states.values()} <= {DONE, measured_rows.NOT_HERE}, states
    assert {name.split("/")[0] for name in rows} == {
        *("op", "paper", "step", "form", "torch")
    }
    steps = [row["figures"] for name, row in rows.items() if name.startswith("step/")]
    assert len(steps) == 15
    assert all(0 < f["seconds"] < 60 and f["compiled_bytes"] for f in steps)
    assert any((tmp_path / "traces").rglob("*.xplane.pb"))
    assert DIFFERS not in done.stdout
