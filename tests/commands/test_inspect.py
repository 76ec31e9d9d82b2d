"""--mode=inspect: what it finds, as JSON and as tables."""

import json
import runpy

import jax
import numpy as np
import pytest
from paths import ROOT

from mmfusion_jax import __main__ as program
from mmfusion_jax.commands import inspect
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.results.json_file import dumps

CONFIGS = ROOT / "configs"


class Blank:
    """Examples of the shapes of small clips."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int):
        video = np.zeros((8, 16, 16, 3), np.uint8)
        return {
            "inputs": {"audio": np.zeros((212, 13), np.float32), "video": video},
            "masks": {"audio": np.ones(212, bool), "video": np.ones(8, bool)},
            "labels": {"digit": np.int32(0)},
            "weight": np.float32(1),
        }


def clips() -> Dataset:
    classes = {"digit": tuple("0123456789")}
    return Dataset("clips", "small clips", {"train": Blank()}, classes=classes)


@pytest.fixture
def config():
    config = runpy.run_path(str(CONFIGS / "cfn_sr.py"))["get_config"]()
    config.data.name = "test_inspect:clips"
    del config.data.cache_dir, config.data.missing_rate
    config.data.batch_size = 4
    config.parallel = "pmap"
    return resolve(config)


def test_finds_what_shapes_tell(config, capsys):
    found = inspect.inspect_config(config, compiled=False)
    assert found.data_read
    assert json.loads(dumps(found))["steps"] == 40
    assert found.steps_per_epoch == 5
    assert found.steps == 40
    parameters = found.parameters
    assert parameters.components["encoders_audio"] == 20_704
    assert found.bytes.parameters == 4 * parameters.total
    assert found.bytes.optimizer >= 2 * found.bytes.parameters
    macs = found.macs_per_example
    audio = 210 * 32 * 7 * 13 + 208 * 32 * 7 * 32 + 26 * 64 * 5 * 32
    assert macs.components["encoders_audio"] == audio
    assert macs.total == sum(macs.components.values())
    assert macs.open_loops == 0
    assert found.outputs["model"].startswith("prediction (4, 10)")
    assert found.inputs["input video"] == "uint8 (4, 8, 16, 16, 3)"
    assert not [x for x in jax.live_arrays() if x.shape == (7, 7, 7, 3, 8)]

    inspect.show(found)
    out = capsys.readouterr().out
    assert "encoders_audio" in out
    assert "20,704" in out
    assert "uint8 (4, 8, 16, 16, 3)" in out


@pytest.mark.slow
def test_a_compiled_step_holds_its_arguments(config):
    found = inspect.inspect_config(config, compiled=True)
    step = found.bytes_per_step
    sizes = found.bytes
    assert step.arguments >= sizes.parameters + sizes.optimizer
    assert step.peak >= step.temporary > 0


def test_a_named_data_set_is_inspected_without_its_files(capsys):
    words = ["inspect", "--config=mea:mosi_utterances"]
    assert program.run(words) == 0
    out, _ = capsys.readouterr()
    assert out.startswith(
        "mea on CMU-MOSI by utterance: 38 steps per epoch, 114 in total"
    )
    assert "no data was read: shapes and classes are the known ones" in out
