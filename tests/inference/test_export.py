"""Exported runs: the same predictions in this package, and with JAX alone."""

import dataclasses
import errno
import json
import os
import shutil
import sys
from pathlib import Path

import exported_runs
import jax
import numpy as np
import pytest
import safetensors.numpy
import small_configs
import tiny_dataset
import yaml
from exported_runs import (
    library_outputs,
    outputs_elsewhere,
    random_run,
    raw_examples,
    tones,
)
from groups import in_ci

import mmfusion_jax as mmf
from mmfusion_jax import __main__ as program
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.inference.exported_folder import digest, write_folder
from mmfusion_jax.inference.predictor import Predictor
from mmfusion_jax.inference.program import ProgramExporter
from mmfusion_jax.runner import experiment

pytest.importorskip("flatbuffers")
OWN = ("tiny_dataset",)
"""Packages that the config of the run names."""

TOLERANCE = 1e-5
"""Largest difference of a float32 output; values are about 1."""

FILES = {
    *("README.md", "calibration.json", "config.json", "export.json"),
    *("model.safetensors", "model.stablehlo", "predictor.json"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The workdir of a training with two seeds."""
    workdir = tmp_path_factory.mktemp("run") / "tones"
    config = tones(**{"train.diagnosis": True, "seeds": 2})
    experiment.train(resolve(config), workdir, "train --config=/home/me/tones.py")
    return workdir


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    mmf.export(run, out, packages=OWN)
    return out


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """A copy of the exported folder to damage."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def test_the_folder_has_all_files_and_no_other(exported):
    assert {path.name for path in exported.iterdir()} == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["model"]


def test_the_loaded_folder_predicts_as_the_run(run, exported):
    ours, theirs = mmf.load(run, packages=OWN), mmf.load(exported, packages=OWN)
    inputs, masks = raw_examples(ours, 8)
    want = ours.predict(inputs, masks=masks)
    assert theirs.predict(inputs, masks=masks) == want
    assert theirs.labels == ours.labels and theirs.modalities == ours.modalities
    assert theirs.score_without(["audio"]) == ours.score_without(["audio"]) != ""
    # Some differ, so that equal ones mean something.
    assert len({tuple(one.probabilities.values()) for one in want}) > 4


def test_the_program_of_the_card_runs_without_the_package(run, exported, tmp_path):
    ours = mmf.load(run, packages=OWN)
    inputs, masks = raw_examples(ours, 5)
    got = outputs_elsewhere(exported, tmp_path, inputs, masks)
    want = library_outputs(ours, inputs, masks)
    assert got.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, atol=TOLERANCE, rtol=0)
    # The last kind of example has no modality.
    np.testing.assert_allclose(got["prediction"][3], ours.run.info.prior, rtol=1e-6)


def test_a_masked_value_changes_no_output_of_the_program(exported):
    from jax import export

    predictor = mmf.load(exported, packages=OWN)
    inputs, masks = raw_examples(predictor, 4)
    arrays = safetensors.numpy.load_file(exported / "model.safetensors")
    content = (exported / "model.stablehlo").read_bytes()
    call = export.deserialize(bytearray(content)).call
    want = np.asarray(call(arrays, inputs, masks)["prediction"])
    nan = {
        name: np.where(masks[name][..., None], x, np.nan).astype(np.float32)
        for name, x in inputs.items()
    }
    np.testing.assert_array_equal(call(arrays, nan, masks)["prediction"], want)


def test_the_card(run, exported):
    text = (exported / "README.md").read_text()
    _, front, card = text.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["license"] == "unknown"  # nobody stated one
    result = mmf.results.read_run(mmf.load(run, packages=OWN).run.folder)
    (found,) = about["model-index"][0]["results"]
    scores = {one["type"]: one["value"] for one in found["metrics"]}
    accuracy = result.test.scores["accuracy"]
    assert scores["accuracy"] == pytest.approx(accuracy, abs=1e-5)
    assert "work or in education" in card and "license of the data | unknown" in card
    for name in tiny_dataset.CLASSES:  # a recall of each
        assert f"\n| {name} | " in card
    rows = [line for line in card.splitlines() if line.startswith("| audio |")]
    assert len(rows) == 2  # its score without it, and its shape
    assert "Protocol “validation”" in card and "Expected calibration error" in card
    assert "| all runs |" in card and "over 2 folds and seeds" in card
    assert " of 2 runs" in card  # which of them it is
    assert "/home/me" not in text  # a path of the author


@pytest.mark.parametrize(
    ("license", "identifier"),
    [
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("CC0", "other"),
        ("MIT\nlicense: mit", "other"),
    ],
)
def test_the_license_of_the_card_never_allows_commercial_use(license, identifier):
    from mmfusion_jax.inference.model_card import license_lines

    lines = "\n".join(license_lines(license))
    assert yaml.safe_load(lines)["license"] == identifier


@pytest.mark.ci
def test_absolute_paths_stay_with_the_author(tmp_path, run):
    trained = mmf.load(run, packages=OWN).run
    source = {**trained.spec.source, "notes": {"path": ["/home/me/data/a.csv", "x"]}}
    spec = dataclasses.replace(trained.spec, source=source)
    moved = dataclasses.replace(trained, spec=spec)
    Predictor(moved, 8).export(tmp_path / "out", platforms=["cpu"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())["config"]
    assert config["notes"] == {"path": ["a.csv", "x"]}


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def rewrite(folder: Path, change=lambda arrays: None, **files: str) -> None:
    """Changes arrays and files, with the digests that belong to them, as forgers do."""
    path = folder / "model.safetensors"
    with safetensors.safe_open(path, framework="numpy") as file:
        digests = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(arrays)
    digests |= {name: digest(x.tobytes()) for name, x in arrays.items()}
    for name, text in files.items():
        name = f"{name}.json"
        (folder / name).write_text(text)
        digests[name] = digest(text.encode())
    safetensors.numpy.save_file(arrays, path, metadata=digests)


KERNEL = "params/head/kernel"


def transposed(arrays) -> None:
    arrays[KERNEL] = np.ascontiguousarray(arrays[KERNEL].T)


def doubled(arrays) -> None:
    arrays[KERNEL] = arrays[KERNEL].astype(np.float64)


DAMAGE = {
    "cut": (lambda f: cut(f / "model.safetensors", 900), "model.safetensors"),
    "cut in the arrays": (lambda f: cut(f / "model.safetensors", -4), "safetensors"),
    "empty": (lambda f: cut(f / "model.safetensors", 0), "model.safetensors"),
    "a bit": (lambda f: flip(f / "model.safetensors", -1), "params/"),
    "no arrays": (lambda f: (f / "model.safetensors").unlink(), "does not exist"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "no predictor": (lambda f: (f / "predictor.json").unlink(), "predictor.json"),
    "no calibration": (lambda f: (f / "calibration.json").unlink(), "calibration"),
    "config": (lambda f: flip(f / "config.json", 200), "config.json"),
    "program": (lambda f: flip(f / "model.stablehlo", 99), "model.stablehlo"),
    "shape": (lambda f: rewrite(f, transposed), KERNEL),
    "dtype": (lambda f: rewrite(f, doubled), KERNEL),
    "array": (lambda f: rewrite(f, lambda x: x.pop(KERNEL)), KERNEL),
    "directory": (
        lambda f: (
            (f / "export.json").unlink(),
            (f / "export.json").mkdir(),
        ),
        "export.json is a folder",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_refused_by_the_name_of_the_damage(copy, kind):
    damage, named = DAMAGE[kind]
    damage(copy)
    with pytest.raises(mmf.CheckpointError, match=named) as error:
        mmf.load(copy, packages=OWN)
    assert error.value.code == "K10"


def test_a_fifo_is_not_waited_for(copy):
    (copy / "config.json").unlink()
    os.mkfifo(copy / "config.json")
    with pytest.raises(mmf.CheckpointError, match="FIFO"):
        mmf.load(copy, packages=OWN)


def test_a_folder_without_its_programs_can_be_loaded(copy):
    (copy / "model.stablehlo").unlink()
    (copy / "README.md").unlink()
    assert mmf.load(copy, packages=OWN).labels == [*tiny_dataset.CLASSES]


def test_the_code_of_a_forged_config_is_not_run(copy, tmp_path, monkeypatch):
    (tmp_path / "evil_part.py").write_text("raise SystemExit('evil code was run')")
    monkeypatch.syspath_prepend(tmp_path)
    text = (copy / "config.json").read_text()
    rewrite(copy, config=text.replace('"concat_fc"', '"evil_part:Model"'))
    with pytest.raises(mmf.ConfigError, match="evil_part") as error:
        mmf.load(copy, packages=OWN)
    assert error.value.code == "C39" and "evil_part" not in sys.modules


@pytest.mark.parametrize("kind", ["file", "not empty", "link", "below a file"])
def test_an_output_that_is_there_is_not_touched(run, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "not empty":
        out.mkdir()
        (out / "mine").touch()
    elif kind == "link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(mmf.MissingDependencyError) as error:
        out = out / "x" if kind == "below a file" else out
        mmf.export(run, out, packages=OWN)
    assert error.value.code == "E10"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", {"a": b"1", "b": b""})
    assert (tmp_path / "out" / "a").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(mmf.MissingDependencyError, match="No space left") as error:
        write_folder(tmp_path / "out", {"a": b"1", "b": b"2"})
    assert error.value.code == "E10" and not any(tmp_path.iterdir())


def test_without_flatbuffers_the_error_has_the_command(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(mmf.MissingDependencyError) as error:
        mmf.export(run, tmp_path / "out", packages=OWN)
    assert error.value.code == "E01" and "mmfusion_jax[export]" in error.value.fix


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ((), "C01"),
        (("--run=nothing",), "C01"),
        (("--run=nothing", "--out=out"), "K09"),
        (("--run=nothing", "--out=out", "--platforms=tpus"), "C03"),
        (("--run=nothing", "--out=out", "--platforms=,"), "C01"),
        (("--run=nothing", "--out=out", "--batch_sizes=0"), "C10"),
        (("--run=nothing", "--out=out", "--batch_sizes=x"), "C01"),
    ],
)
def test_wrong_flags(flags, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert program.run(["export", *flags]) in (2, 5)
    assert f"error[{code}]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.ci
def test_the_command_writes_fixed_batches_too(run, tmp_path, capsys):
    out = tmp_path / "out"
    flags = [f"--run={run}", f"--out={out}", "--batch_sizes=3", "--platforms=cpu"]
    flags += ["--packages=tiny_dataset", "--json"]
    assert program.run(["export", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    sizes = [one["batch_size"] for one in found["programs"]]
    assert sizes == [None, 3] and (out / "model_b3.stablehlo").is_file()
    assert all(one["difference"] < TOLERANCE for one in found["programs"])
    assert program.run(["export", f"--run={out}", f"--out={tmp_path / 'b'}"]) == 2


@pytest.mark.ci
def test_a_model_that_cannot_be_mapped_gets_fixed_batches(run, tmp_path, monkeypatch):
    def divides_its_batch(*arguments):
        raise TypeError("b cannot be divided by 2")

    monkeypatch.setattr(ProgramExporter, "mapped_program", divides_its_batch)
    found = mmf.export(run, tmp_path / "out", platforms=["cpu"], packages=OWN)
    assert [one.batch_size for one in found.programs] == [1, 8]
    assert "b cannot be divided by 2" in (tmp_path / "out" / "README.md").read_text()
    assert 'open("model_b1.stablehlo"' in (tmp_path / "out" / "README.md").read_text()


CASES = {
    **{word: (word, {}) for word in ("cfn_sr", "mea", "mcl_mcf", "of_cmaer_cat")},
    "hetero_fusion_net": ("hetero_fusion_net", {}),
    "late_fusion": ("hetero_fusion_net:digits_late", {}),
}


def check_everywhere(run, tmp_path: Path) -> None:
    """The exported model predicts the same, loaded and elsewhere."""
    ours = Predictor(run, 4)
    found = ours.export(tmp_path / "out")
    assert found.programs[0].batch_size is None
    inputs, masks = raw_examples(ours, len(ours.modalities) + 3)
    want = library_outputs(ours, inputs, masks)
    loaded = mmf.load(tmp_path / "out", packages=OWN)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, run.variables)
    assert loaded.config == ours.config
    elsewhere = outputs_elsewhere(tmp_path / "out", tmp_path, inputs, masks)
    for name, x in want.items():
        np.testing.assert_allclose(elsewhere[name], x, atol=TOLERANCE, rtol=0)
    assert np.ptp(want["prediction"], axis=0).max() > 1e-3  # it reads its inputs


@pytest.mark.parametrize(
    "name", in_ci(CASES, slow=("late_fusion", "mea", "of_cmaer_cat"))
)
def test_every_paper(name, tmp_path):
    word, changes = CASES[name]
    config = small_configs.small(word, pretrain_unimodal=(), **changes)
    check_everywhere(random_run(config, small_configs.digits(), tmp_path), tmp_path)


@pytest.mark.parametrize("label", in_ci(("score", "flags")))
def test_every_task(label, tmp_path):
    run = random_run(tones(label), tiny_dataset.tones(), tmp_path)
    check_everywhere(run, tmp_path)
    assert exported_runs.LOSSES[label]
