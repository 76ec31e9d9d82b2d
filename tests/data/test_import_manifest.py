"""Manifests of imports: what is written is read, and damage is one error."""

import dataclasses
import functools
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from damaged_json import damaged

from mmfusion_jax.commands.check_features import format_report
from mmfusion_jax.data.datasets.sentiment_files import (
    check_imported,
    load_sentiment_file,
)
from mmfusion_jax.data.feature_files.findings import find_problems
from mmfusion_jax.data.feature_files.import_manifest import VERSION, open_import
from mmfusion_jax.data.feature_files.importer import import_file, summarize_file
from mmfusion_jax.data.feature_files.summary import FileSummary, ImportSummary
from mmfusion_jax.data.storage.array_record_store import StoreInfo
from mmfusion_jax.errors import DataError
from mmfusion_jax.results.json_file import dumps

LABELS = {"mosi": "score", "iemocap": "emotions"}


def arrays(label: str) -> dict[str, np.ndarray]:
    """A small file in the npz layout: features, ids and one label."""
    made = {}
    for split in ("train", "valid", "test"):
        rng = np.random.default_rng([*split.encode()])
        made[f"{split}_audio"] = rng.normal(size=(3, 4, 2)).astype("f4")
        made[f"{split}_pieces"] = rng.integers(1, 9, (3, 4))
        made[f"{split}_audio_lengths"] = np.array([4, 2, 0])
        made[f"{split}_id"] = np.array([f"{split}{i}$_$0" for i in range(3)])
        labels = {"score": [-1.5, 0.0, 2.0], "emotions": np.eye(4, dtype=int)[:3]}
        made[f"{split}_{label}"] = np.array(labels[label])
    return made


@pytest.fixture(params=LABELS)
def found(request, tmp_path, monkeypatch) -> ImportSummary:
    """The summary of an import, of scores and of flags."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "own.npz", **arrays(LABELS[request.param]))  # pyright: ignore
    parent = tmp_path / "cache" / "imported" / request.param
    return import_file(
        str(tmp_path / "own.npz"), request.param, str(parent), nan_to_zero=False
    )


def manifest_file(found: ImportSummary) -> Path:
    return Path(found.folder) / "MANIFEST.json"


def read_examples(name: str) -> None:
    """Reads all examples, with every modality that has features standardized."""
    data = load_sentiment_file(name, text="bert", standardize=("audio",))
    assert data.facts["license"] and data.ids["text"]
    for split, source in data.sources.items():
        assert len(source) == len(data.label(split, LABELS[name]))
        assert [source[i]["weight"] for i in range(len(source))] == [1, 1, 1]


def test_what_is_written_is_read(found, tmp_path):
    store, manifest = open_import(Path(found.folder), found.name)
    assert list(manifest.splits) == ["train", "valid", "test"]
    assert manifest.splits == found.splits and manifest.license == found.license
    assert manifest.version == VERSION and manifest.counts == store.manifest["counts"]
    assert check_imported(found.name) == manifest
    read_examples(found.name)
    summary = summarize_file(str(tmp_path / "own.npz"), found.name)
    assert summary.splits == found.splits
    for one in (found, manifest, summary):
        assert msgspec.convert(json.loads(dumps(one)), type(one)) == one


def test_a_damaged_manifest_is_refused_or_can_be_used(found):
    path, folder = manifest_file(found), Path(found.folder)
    whole, refused, count, read = json.loads(path.read_text()), 0, 0, set()
    for where, changed in damaged(whole):
        path.write_text(json.dumps(changed))
        count += 1
        try:
            _, manifest = open_import(folder, found.name)
        except DataError as error:
            assert error.code == "D21" and str(folder) in str(error), where
            assert len(str(error).splitlines()) == 2, where
            assert error.fix.startswith(f"delete {folder} and run: "), where
            assert f"data import FILE --dataset={found.name}" in error.fix, where
            refused += 1
            continue
        try:
            assert format_report(manifest) and dumps(manifest)
            # Reading is slow: one item of every list is enough.
            field = str(
                (*(key for key in where[:-1] if isinstance(key, str)), where[-1])
            )
            if field not in read:
                read.add(field)
                read_examples(found.name)
        except Exception as error:
            raise AssertionError(f"{where} is read, but not usable") from error
    assert count > 1500 and refused > count / 2


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("inputs.audio.steps.minimum", 5, "steps: not in increasing order"),
        ("inputs.audio.moments.count", 0, "moments: no steps"),
        ("inputs.audio.moments.count", 3, "moments: too few steps"),
        ("inputs.audio.moments.total", [1.0, np.nan], "moments: not finite"),
        ("inputs.audio.moments.constant", 3, "too many constant features"),
        ("inputs.audio.low", np.inf, "low and high: not a range"),
        ("inputs.audio.high", None, "low and high: one is missing"),
        ("inputs.audio.features", 1, "features: not the length of the moments"),
        ("inputs.pieces.moments", 2, r"Expected `object \| null`, got `int`"),
        ("inputs.audio.nan", 2**60, "Expected `int` <= "),
        ("inputs", {}, "inputs: empty"),
        ("count", 4, "label 'score': not 4 examples"),
        ("scores", {}, "labels: not those of CMU-MOSI"),
        ("scores.score", [0.0, 1.0, 9.0], "labels: not those of CMU-MOSI"),
        ("flags", {"x": [[0, 1], [0], [1, 1]]}, "'x': not the same number of flags"),
        ("flags", {"x": [[2], [0], [1]]}, "label 'x': not 0 or 1"),
        ("ids", ["one"], "ids: not 3 examples"),
    ],
)
@pytest.mark.parametrize("found", ["mosi"], indirect=True)
def test_statistics_that_contradict_each_other_are_named(found, path, value, problem):
    whole = json.loads(manifest_file(found).read_text())
    *outer, last = path.split(".")
    for split in whole["splits"].values():
        functools.reduce(lambda x, name: x[name], outer, split)[last] = value
    manifest_file(found).write_text(json.dumps(whole))
    with pytest.raises(DataError, match=f"D21.*MANIFEST.json: .*{problem}"):
        load_sentiment_file(found.name)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("counts", {"train": 3, "valid": 3, "test": 2}, "counts: not those of the spl"),
        ("features", {}, "features: id is not a text"),
        ("name", "mosy", "name: not a dataset"),
    ],
)
@pytest.mark.parametrize("found", ["mosi"], indirect=True)
def test_fields_that_do_not_fit_the_statistics_are_named(found, field, value, problem):
    whole = json.loads(manifest_file(found).read_text())
    manifest_file(found).write_text(json.dumps({**whole, field: value}))
    with pytest.raises(DataError, match=f"D21.*MANIFEST.json: .*{problem}"):
        load_sentiment_file(found.name)


@pytest.mark.parametrize("found", ["mosi"], indirect=True)
def test_features_of_another_size_than_those_of_the_store_are_named(found):
    whole = json.loads(manifest_file(found).read_text())
    whole["features"]["audio"]["shape"] = [None, 3]
    manifest_file(found).write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"D21.*features: wrong audio"):
        load_sentiment_file(found.name)


def test_an_import_of_another_version_must_be_imported_again(found):
    path = manifest_file(found)
    whole = json.loads(path.read_text())
    # As version 1 wrote it.
    report = {"train": {"inputs": {"audio": {"steps": [0, 2.0, 4]}}}}
    common = {f.name: whole[f.name] for f in dataclasses.fields(StoreInfo)}
    old = {**common, "report": report}
    for manifest, message in (
        (old, "no version"),
        ({**whole, "version": VERSION + 1}, f"version {VERSION + 1}"),
    ):
        path.write_text(json.dumps(manifest))
        for read in (load_sentiment_file, check_imported):
            with pytest.raises(
                DataError, match=rf"D21.*has {message}, but .* reads {VERSION}"
            ) as caught:
                read(found.name)
            assert caught.value.fix == (
                f"delete {found.folder} and run: python -m mmfusion_jax data import "
                f"FILE --dataset={found.name}"
            )


def test_an_import_in_the_folder_of_another_dataset_is_an_error(found):
    other = "mosei" if found.name == "mosi" else "sims"
    with pytest.raises(DataError, match=f"D21.*of '{found.name}', not of '{other}'"):
        open_import(Path(found.folder), other)


def test_importing_again_over_a_damaged_manifest_is_an_error(found, tmp_path):
    path = manifest_file(found)
    whole = json.loads(path.read_text())
    del whole["splits"]["test"]["ids"]
    path.write_text(json.dumps(whole))
    parent = str(Path(found.folder).parent)
    with pytest.raises(DataError, match="D21.*missing required field `ids`"):
        import_file(str(tmp_path / "own.npz"), found.name, parent, nan_to_zero=False)


def test_a_damaged_summary_of_the_sandbox_is_refused_or_can_be_shown(found):
    whole, refused, count = json.loads(dumps(found)), 0, 0
    for where, changed in damaged(whole):
        count += 1
        try:
            summary = msgspec.convert(changed, ImportSummary)
        except ValueError:  # which `run_sandboxed` reports as D67
            refused += 1
            continue
        try:
            assert format_report(summary) and dumps(summary)
        except Exception as error:
            raise AssertionError(f"{where} is read, but not usable") from error
    assert count > 1500 and refused > count / 2


def test_nan_labels_are_kept_until_they_are_shown(tmp_path):
    made = arrays("score")
    made["valid_score"][1] = np.nan
    np.savez(tmp_path / "own.npz", **made)  # pyright: ignore
    summary = summarize_file(str(tmp_path / "own.npz"))
    again = msgspec.convert(msgspec.to_builtins(summary), FileSummary)
    assert find_problems(again).problems == [
        "valid: 1 values of label 'score' are NaN or infinite"
    ]
    assert json.loads(dumps(again))["splits"]["valid"]["scores"]["score"][1] is None


def test_labels_of_another_dataset_are_kept_in_a_manifest(tmp_path):
    """IEMOCAP has no scores, so NaN among them is not an error."""
    made = arrays("emotions")
    for split in ("train", "valid", "test"):
        made[f"{split}_score"] = np.array([0.5, np.nan, 1.0])
    np.savez(tmp_path / "own.npz", **made)  # pyright: ignore
    found = import_file(str(tmp_path / "own.npz"), "iemocap", str(tmp_path), False)
    _, manifest = open_import(Path(found.folder), "iemocap")
    np.testing.assert_array_equal(
        manifest.splits["test"].scores["score"], [0.5, np.nan, 1]
    )
