"""Every file and command of CONTRIBUTING.md, outside the package and inside it."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from groups import in_ci
from paths import ROOT

from mmfusion_jax import __main__ as program
from mmfusion_jax import main
from mmfusion_jax.cli.command import run_command
from mmfusion_jax.cli.flags import Flag, parse
from mmfusion_jax.config import build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.registry import DATASETS
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.results.experiment_result import read_result
from mmfusion_jax.runner.trainer import Trainer
from mmfusion_jax.testing import check_dataset

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
"""Language and text of every block."""

BLOCKS = [text for language, text in FENCES if language == "python"]
FILES = {m[1]: b for b in BLOCKS if (m := re.match(r"# (\S+\.py)\n", b))}
"""Path -> text, of the files of the page."""

(DIFF,) = (text for language, text in FENCES if language == "diff")
SHELL = [
    line.removeprefix("PYTHONPATH=. ")
    for language, block in FENCES
    if not language
    for line in re.sub(r" \\\n\s*", " ", block).splitlines()
]
"""Lines of the blocks without a language, such as commands."""

MAIN = "python -m mmfusion_jax.main "
PACKAGE = "my_package"
TUTORIAL = ("gmu.py", "gmu_config.py", "test_gmu.py")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with all files of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    yield tmp_path
    own = {PACKAGE, *(Path(name).stem for name in TUTORIAL)}
    for name in [name for name in sys.modules if name.split(".")[0] in own]:
        del sys.modules[name]


def commands(start: str) -> list[str]:
    """Commands of the page that start with some words."""
    found = [line for line in SHELL if line.startswith(start)]
    assert found, start
    return found


def pytest_in(folder: Path, *words: str, path: str = "", **env: str) -> None:
    """Runs pytest in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path or str(ROOT), **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_every_block_is_a_file_or_an_error_code():
    others = [block for block in BLOCKS if not re.match(r"# \S+\.py\n", block)]
    assert set(TUTORIAL) < set(FILES) and len(FILES) == len(BLOCKS) - 2
    raising, entry = others
    with pytest.raises(ConfigError, match="C90"):
        exec(raising, {})
    assert entry.startswith("_code(")


def test_a_dataset_in_memory_is_short():
    assert len(FILES["my_package/dataset.py"].splitlines()) <= 40


def test_the_equations_of_the_paper(folder):
    importlib.import_module("test_gmu").test_the_equations()


@pytest.mark.ci
def test_the_tests_of_the_page_pass(folder, cache_dir):
    pytest_in(folder, "test_gmu.py", MMFUSION_CACHE=str(cache_dir / "digits"))
    assert f"pytest {PACKAGE}" in PAGE
    pytest_in(folder, PACKAGE)


@pytest.mark.ci
def test_the_commands_of_the_paper(folder, monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "digits", "small_configs:digits")
    small = [
        "--config.train.epochs=1",
        "--config.pretrain_unimodal=",
        "--config.data.batch_size=4",
        "--config.model.encoders.audio.name=conv1d",
        "--config.model.encoders.video.blocks=1,",
        "--config.model.encoders.video.base_channels=4",
    ]
    inspect, train = commands(f"{MAIN}--config=gmu_config.py")
    for command in (inspect, train, *commands(f"{MAIN}--config=cfn_sr")):
        assert run_command(main.COMMAND, [*shlex.split(command)[3:], *small]) == 0
    result = read_result(Path("runs/gmu"))
    assert result and set(result.summary.modality_weights) == {"audio", "video"}
    capsys.readouterr()
    (compare,) = commands("python -m mmfusion_jax compare")
    assert program.run(shlex.split(compare)[3:]) == 0
    said = capsys.readouterr().out
    assert "McNemar" in said and "cfn_sr" in said and "gmu" in said
    assert Path("comparison.html").is_file()


def recordings(folder: Path) -> Path:
    """Files for the dataset on disk."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 8, "valid": 4, "test": 4}.items():
        for i in range(count):
            file = folder / split / ("low", "high")[i % 2] / f"{i:02d}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            audio, video = rng.normal(i % 2, 1, (16 + i, 4)), rng.normal(size=(4, 6))
            np.savez(file, audio=audio, video=video)
    return folder


def weights(file: Path) -> dict[str, np.ndarray]:
    """Writes weights for the encoder of audio, with a head that is not used."""
    rng = np.random.default_rng(1)
    shapes = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (8, 8), "2.bias": (8,)}
    arrays = {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    head = {"3.bias": np.ones(2, np.float32)}
    safetensors.numpy.save_file(
        {f"module.{k}": v for k, v in (arrays | head).items()}, file
    )
    return arrays


def request(flags: list[str]):
    """The config of some flags."""
    return resolve(parse(flags, (Flag("workdir", "", "where to"),), True).config)


VARIANTS = {
    "parts": ["--config=my_package/config.py"],
    "pretrained": [
        "--config=my_package/pretrained_config.py",
        "--config.model.encoders.audio.weights=audio.safetensors",
    ],
    "stored": [
        "--config=my_package/config.py",
        "--config.data.name=my_package.stored:load_recordings",
    ],
    "fused": [],
}
"""Parts -> flags; the command of `fused` is that of the page."""


def flags_of(variant: str) -> list[str]:
    """The flags of a variant; what it reads is written."""
    weights(Path("audio.safetensors"))
    recordings(Path("recordings"))
    (flags,) = [c for c in commands(f"{MAIN}--config=my_package") if "fused" in c]
    return VARIANTS[variant] or shlex.split(flags)[3:]


@pytest.mark.parametrize("variant", in_ci(VARIANTS, "stored"))
def test_the_other_parts_train(variant, folder):
    flags = [*flags_of(variant), "--config.train.epochs=1", "--workdir=runs"]
    assert run_command(main.COMMAND, flags) == 0
    result = read_result(Path("runs"))
    assert result and np.isfinite(result.summary.test["brier"].mean)


def test_the_weights_of_a_file_are_those_of_the_encoder(folder, capfd):
    arrays = weights(folder / "audio.safetensors")
    flags = [*VARIANTS["pretrained"], "--config.train.epochs=0"]
    assert run_command(main.COMMAND, [*flags, "--workdir=runs"]) == 0
    assert "(1 unused keys)" in capfd.readouterr().err
    spec = request(flags)
    state = Trainer(spec, build_data.build_dataset(spec, 0)).best_state(Path("runs"))
    got = state.params["encoders_audio"]
    for i, j in enumerate((0, 2)):
        kernel = got[f"layer_{i}"]["kernel"]
        np.testing.assert_array_equal(kernel, arrays[f"{j}.weight"].T)
        np.testing.assert_array_equal(got[f"layer_{i}"]["bias"], arrays[f"{j}.bias"])


def test_the_dataset_on_disk(folder):
    stored = importlib.import_module("my_package.stored")
    data = stored.load_recordings(data_dir=str(recordings(folder / "recordings")))
    check_dataset(data, "pitch")
    example = data.source("train")[1]
    assert example["masks"]["audio"].sum() == 19 and example["labels"]["pitch"] == 1
    assert data.example_id_list("train")[:2] == ["high/01", "high/03"]
    (folder / "recordings/train/low/00.npz").unlink()
    again = stored.load_recordings(data_dir=str(folder / "recordings"))
    assert len(again.source("train")) == 7
    with pytest.raises(stored.DataError, match="nothing/train has no files"):
        stored.load_recordings(data_dir="nothing")


@pytest.fixture
def inside(tmp_path):
    """A copy of the repository with the files and changes of the page."""
    copy = tmp_path / "copy"
    names = ("mmfusion_jax", "configs", "tests", "notebooks", "docs", "experiments")
    ignored = shutil.ignore_patterns("__pycache__", "runs")
    for name in names:
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for file in (file for file in ROOT.iterdir() if file.is_file()):
        shutil.copy(file, copy)
    for name in TUTORIAL:
        (copy / name).write_text(FILES[name], "utf-8")
    for line in [line for line in SHELL if line.startswith("cp ")]:
        _, source, target = line.split()
        shutil.move(copy / source, copy / target)
    (copy / "x.diff").write_text(DIFF, "utf-8")
    subprocess.run(["git", "apply", "x.diff"], cwd=copy, check=True)
    (copy / "x.diff").unlink()
    return copy


@pytest.mark.ci
def test_the_paper_in_this_repository(inside, cache_dir):
    for check in (["check"], ["format", "--check"]):
        words = [sys.executable, "-m", "ruff", *check, "."]
        subprocess.run(words, cwd=inside, check=True)
    tests = [
        "tests/test_public_names.py",
        "tests/test_house.py",
        "tests/test_tables.py",
        "tests/test_examples.py",
        "tests/models/test_gmu.py",
        "tests/models/test_missing.py",
        "tests/models/test_aux_names.py",
        "tests/runner/test_small_configs.py",
        "tests/config/test_offered.py",
        "tests/data/test_modality_dropout.py",
    ]
    chosen = "gmu or GMU or house or public or tables or every_model"
    words = ["-m", "ci or not ci", "-k", chosen, *tests]
    pytest_in(inside, *words, path=str(inside), MMFUSION_TEST_CACHE=str(cache_dir))
