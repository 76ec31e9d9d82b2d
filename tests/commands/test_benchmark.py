"""The benchmark command: what it measures, and that the figures hang together."""

import json
import os
import runpy
import time

import numpy as np
import pytest
from paths import ROOT

from mmfusion_jax import bench
from mmfusion_jax.cli.command import run_command
from mmfusion_jax.commands import benchmark, compile_for
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.report.formatting import DASH
from mmfusion_jax.results.json_file import dumps

pytestmark = pytest.mark.versions


class Blank:
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int):
        return {
            "inputs": {"audio": np.zeros((212, 13), np.float32)},
            "masks": {"audio": np.ones(212, bool)},
            "labels": {"digit": np.int32(0)},
            "weight": np.float32(1),
        }


def sounds() -> Dataset:
    classes = {"digit": tuple("0123456789")}
    return Dataset("sounds", "silence", {"train": Blank()}, classes=classes)


@pytest.fixture
def config():
    config = runpy.run_path(str(ROOT / "configs" / "cfn_sr.py"))["get_config"]()
    config.data.name = "test_benchmark:sounds"
    del config.data.cache_dir, config.data.missing_rate
    config.pretrain_unimodal = ()
    config.data.batch_size = 4
    audio = {"name": "audio_cnn"}
    config.model = {"name": "unimodal", "encoders": {"audio": audio}}
    return config


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_measures_every_part(config, capsys, parallel):
    config.parallel = parallel
    found = benchmark.measure(resolve(config), 3)
    assert json.loads(dumps(found))["train_step"]["step_s"]["median"] > 0
    for part in (found.forward, found.train_step, found.pipeline):
        step = part.step_s
        assert 0 < step.p10 <= step.median <= step.p90
        assert part.examples_per_s <= 4 / step.p10
    for part in (found.init, found.forward, found.train_step):
        assert part.first_call_s > 0
        assert part.peak_bytes > 50e6
    assert found.train_step.compile_s < found.train_step.first_call_s
    assert 0 <= found.pipeline.data_stall_fraction <= 1
    assert found.device.count == 2

    benchmark.show(found)
    out = capsys.readouterr().out
    for part in ("train step", "data loading stalls", "silence", "jax"):
        assert part in out


def test_compiles_for_chips_that_are_not_there(config, capsys):
    found = compile_for.compile_for(resolve(config), "a100")
    assert json.loads(dumps(found))["steps"].keys() == {"train", "eval"}
    assert (found.platform, found.chips, found.batch_size) == ("cuda", 1, 4)
    train, evaluation = found.steps["train"], found.steps["eval"]
    assert train.flops > 2 * evaluation.flops > 0
    assert train.donated > 10
    assert evaluation.roofline and evaluation.roofline.compute > 0
    for step in found.steps.values():
        assert step.products.keys() == {"float32 highest"}
        assert (step.float64, step.dynamic_shapes, step.host_callbacks) == (0, 0, 0)

    compile_for.show(found)
    out = capsys.readouterr().out
    chips = "batch 4 on a100 (1 chip),"
    for part in ("train step", "unimodal", chips, "float32 highest", "jax"):
        assert part in out
    rows = {line.split("  ")[0].strip(" │"): line for line in out.splitlines()}
    # Bytes are not known, and memory can be the bound.
    assert all(rows[name].count(DASH) == 2 for name in ("bound", "examples/s at most"))


def test_pmap_has_no_form_for_other_chips(config):
    config.parallel = "pmap"
    with pytest.raises(ConfigError, match="parallel=shard_map, or jit"):
        compile_for.compile_for(resolve(config), "cuda")


def test_compile_for_is_a_flag_of_bench(config, capsys, monkeypatch):
    monkeypatch.setattr(compile_for, "compile_for", lambda spec, name: {"of": name})
    words = ["--config=configs/cfn_sr.py", "--compile_for=v5e:2x2", "--json"]
    monkeypatch.chdir(ROOT)
    assert run_command(bench.COMMAND, words) == 0
    assert json.loads(capsys.readouterr().out) == {"of": "v5e:2x2"}


def test_compile_for_without_a_name_measures_nothing(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["--config=configs/cfn_sr.py", "--compile_for="]
    assert run_command(bench.COMMAND, words) == 2
    assert "error[C03] --compile_for=''" in capsys.readouterr().err


def test_compile_for_uses_no_device_of_this_machine(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(compile_for, "compile_for", lambda *_: {})
    monkeypatch.chdir(ROOT)
    words = ["--config=configs/cfn_sr.py", "--compile_for=cuda", "--json"]
    assert run_command(bench.COMMAND, words) == 0
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_slow_data_is_seen():
    def slow():
        while True:
            time.sleep(0.02)
            yield 1

    step = lambda state, batch: (state, np.float32(batch))
    trainer = benchmark.RepeatedStep(step, None, None)  # pyright: ignore
    found = benchmark._time_pipeline(trainer, slow(), 5, 1)  # pyright: ignore
    assert found.data_stall_fraction > 0.9
    assert found.step_s.median == pytest.approx(0.02, abs=0.015)


def test_help_needs_no_jax(capsys):
    assert run_command(bench.COMMAND, ["--help"]) == 0
    assert "--steps=20" in capsys.readouterr().out
