"""Leaks, bad examples and labels of feature files, whatever their spelling."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import COUNTS, equal_clips, mmsa, mult, npz, write
from groups import in_ci

from mmfusion_jax.data.datasets.sentiment_files import load_sentiment_file
from mmfusion_jax.data.feature_files.example_ids import find_videos, known_ids
from mmfusion_jax.data.feature_files.findings import find_problems
from mmfusion_jax.data.feature_files.importer import import_file, summarize_file
from mmfusion_jax.data.feature_files.known_datasets import FEATURE_DATASETS
from mmfusion_jax.data.feature_files.leaks import digest, find_equal
from mmfusion_jax.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))


def import_here(file, name="mosi", **options):
    """Imports without a sandboxed process."""
    parent = Path(os.environ["MMFUSION_CACHE"]) / "imported" / name
    return import_file(str(file), name, str(parent), False, **options)


FORMS: dict[str, Any] = {
    "abc01$_$3": lambda video, clip: f"{video}$_${clip}",
    "abc01[3]": lambda video, clip: f"{video}[{clip}]",
    "abc01(3)": lambda video, clip: f"{video}({clip})",
    "abc01/3": lambda video, clip: f"{video}/{clip}",
    "tuple": lambda video, clip: (video, clip),
    "text of a tuple": lambda video, clip: str((video, clip)),
    "text of bytes": lambda video, clip: str(f"{video}[{clip}]".encode()),
    "bytes": lambda video, clip: f"{video}$_${clip}".encode(),
    "tuple of bytes": lambda video, clip: (video.encode(), b"%d" % clip),
    "abc01_3": lambda video, clip: f"{video}_{clip}",
    "abc01-3": lambda video, clip: f"{video}-{clip}",
    "abc01_utt3": lambda video, clip: f"{video}_utt{clip}",
    "mosi/abc01_3.mp4": lambda video, clip: f"mosi/{video}_{clip}.mp4",
    "abc01_3.0_4.5": lambda video, clip: f"{video}_{clip}.0_{clip}.5",
}


def with_ids(form, *, leak: bool) -> dict:
    """A file of two clips from each video, of which one can be in train and test."""
    root, number = mmsa(), 0
    for split in COUNTS:
        ids = []
        for i in range(COUNTS[split]):
            ids.append(form(f"abc{number // 2:02d}", i))
            number += 1
        number += number % 2  # the next split has other videos
        root[split]["id"] = ids
    if leak:
        root["test"]["id"][0] = form("abc00", 90)
    return root


@pytest.mark.parametrize(
    "form", in_ci(FORMS, "abc01[3]", "abc01/3", "abc01_3", "tuple")
)
def test_a_leak_of_videos_is_found_in_every_spelling_of_ids(tmp_path, form):
    file = write(tmp_path / "x.pkl", with_ids(FORMS[form], leak=True))
    with pytest.raises(DataError, match=r"D73[\s\S]* 1 videos are in.*abc00' in train"):
        import_here(file)
    assert not list(tmp_path.rglob("MANIFEST.json"))
    found = import_here(write(tmp_path / "y.pkl", with_ids(FORMS[form], leak=False)))
    assert not find_problems(found).problems and not find_problems(found).unchecked
    groups = load_sentiment_file("mosi").groups
    assert [len(groups[split]) for split in COUNTS] == [4, 2, 3]


UNKNOWN: dict[str, Any] = {
    "whole numbers": (lambda split, i: 100 * ord(split[1]) + i, "name no video"),
    "letters": (lambda split, i: split[1] + "abcdefgh"[i], "name no video"),
    "one word": (lambda split, i: f"clip_{ord(split[1])}{i}", "name no video"),
    "classes": (lambda split, i: f"{'np'[i % 2]}os_{split[1]}{i}", "name no video"),
    "of the split": (lambda split, i: f"{split}{i}$_$0", "begin with the name of"),
    "numbers of rows": (lambda split, i: i, "no ids: clips and videos"),
    "None": (lambda split, i: None, "no ids: clips and videos"),
    "mixed": (
        lambda split, i: f"{split[:2]}{i}$_$0" if i else split[1] * 3,
        "3 of 17 ids, such as 'rrr', name no video",
    ),
}


@pytest.mark.parametrize("kind", in_ci(UNKNOWN, "whole numbers", "mixed", "None"))
def test_a_check_that_is_not_possible_does_not_read_as_passed(tmp_path, kind):
    make, reason = UNKNOWN[kind]
    root = mmsa()
    for split, count in COUNTS.items():
        root[split]["id"] = [make(split, i) for i in range(count)]
    findings = find_problems(import_here(write(tmp_path / "x.pkl", root)))
    assert not findings.problems
    (unchecked,) = findings.unchecked
    assert reason in unchecked and "cannot be detected" in unchecked
    assert findings.conclusion == "no problem was found in what could be checked"
    assert unchecked in load_sentiment_file("mosi").facts["warnings"]


def test_ids_that_identify_no_example_are_not_ids():
    assert known_ids({"train": ["None", "nan"], "test": [""]}) == {
        "train": (),
        "test": (),
    }
    assert known_ids({"train": ["None", "a"], "test": ["b "]})["train"] == ("", "a")
    assert known_ids({"train": ["0", "1"], "test": ["0"]})["test"] == ()
    assert known_ids({"train": ["2", "1"], "test": ["1"]})["test"] == ()
    assert known_ids({"train": ["0", "2"], "test": ["0"]})["test"] == ("0",)
    mixed = {"train": ["a1$_$3", "a2$_$0"], "test": ["a1_4", "a3_1"]}
    assert find_videos(mixed).names["test"] == ["a1", "a3"]
    assert not find_videos({"train": (), "test": ()}).names["train"]


def test_equal_features_under_two_ids_are_a_leak(tmp_path):
    file = write(tmp_path / "x.pkl", equal_clips("train", "test"))
    listed = r"train 'train0\$_\$0' = test 'test0\$_\$1'"
    with pytest.raises(DataError, match=rf"D73[\s\S]*1 clips have equal.*{listed}"):
        import_here(file)
    assert any(
        "equal features" in p
        for p in find_problems(summarize_file(str(file), "mosi")).problems
    )
    found = import_here(file, drop_bad=True)
    assert [(one.split, one.index) for one in found.dropped] == [("train", 0)]
    assert not find_problems(found).problems
    made = load_sentiment_file("mosi")
    assert made.facts["dropped"] == {"train": 1}
    assert len(made.source("train")) == COUNTS["train"] - 1
    want = mmsa()["train"]["regression_labels"][1:]
    np.testing.assert_array_equal(made.label("train", "score"), want)
    assert made.example_ids["train"] == mmsa()["train"]["id"][1:]


@pytest.mark.parametrize("pair", [("valid", "train"), ("valid", "test")])
def test_copies_are_refused_by_import_and_training_until_a_field_accepts(
    tmp_path, pair
):
    """In validation as in test: they would decide which checkpoint is chosen."""
    file = write(tmp_path / "x.pkl", equal_clips(*pair))
    first, second = sorted(pair, key=list(COUNTS).index)
    ids = {pair[0]: f"{pair[0]}0$_$0", pair[1]: f"{pair[1]}0$_$1"}
    listed = f"{first} '{ids[first]}' = {second} '{ids[second]}'"
    with pytest.raises(DataError, match="D73") as caught:
        import_here(file)
    assert listed in str(caught.value) and "--equal_clips accepts" in caught.value.fix
    (problem,) = find_problems(import_here(file, equal_clips=True)).problems
    assert listed in problem
    with pytest.raises(DataError, match="D73") as caught:
        load_sentiment_file("mosi")
    assert listed in str(caught.value)
    assert caught.value.fix.startswith("--config.data.equal_clips=True accepts")
    accepted = load_sentiment_file("mosi", equal_clips=True)
    assert problem in accepted.facts["warnings"]


def test_equal_words_or_silence_alone_are_not_a_leak():
    zeros, words = np.zeros((3, 2), "f4"), np.array([1, 2])
    sound = np.ones((3, 2), "f4")
    assert not digest({"words": words, "audio": zeros})
    assert not digest({"text": sound})
    one = digest({"words": words, "audio": sound})
    assert one and one != digest({"words": words[:1], "audio": sound})
    assert one != digest({"words": words, "audio": sound[:2]})
    (group,) = find_equal({"train": [one, "", "x"], "test": ["", one]})
    assert (group.splits, group.indices) == (["train", "test"], [0, 1])
    assert not find_equal({"train": [one, one], "test": ["", "y"]})


def bad_file() -> dict:
    """A file with a NaN score, two scores out of range and two empty examples."""
    root = mmsa()
    root["train"]["regression_labels"][1] = np.nan
    root["train"]["regression_labels"][3] = 3.6667
    root["test"]["regression_labels"][4] = -5
    for split, index in (("train", 5), ("valid", 2)):
        part = root[split]
        for name in ("text", "text_bert", "audio", "vision"):
            part[name][index] = 0
        for name in ("audio_lengths", "vision_lengths"):
            part[name][index] = 0
    return root


def test_all_bad_examples_are_listed_and_can_be_left_out(tmp_path):
    file = write(tmp_path / "x.pkl", bad_file())
    with pytest.raises(DataError, match="D79.* 4 examples cannot be used") as caught:
        import_here(file)
    lines = str(caught.value).splitlines()
    assert lines[1:4] == [
        "  train: score not from -3 to 3: example 1 'train0$_$1': nan, example 3 "
        "'train1$_$3': 3.6667",
        "  train: no step in any modality: example 5 'train2$_$5'",
        "  test: score not from -3 to 3: example 4 'test2$_$4': -5",
    ]
    assert "--drop_bad" in caught.value.fix
    found = find_problems(summarize_file(str(file), "mosi"))
    assert [f"  {line}" for line in found.problems[:3]] == lines[1:4]
    imported = import_here(file, drop_bad=True)
    assert [(b.split, b.index) for b in imported.dropped] == [
        ("train", 1),
        ("train", 3),
        ("train", 5),
        ("test", 4),
    ]
    assert not find_problems(imported).problems
    manifest = json.loads((Path(imported.folder) / "MANIFEST.json").read_text())
    assert [one["id"] for one in manifest["dropped"]][:2] == [
        "train0$_$1",
        "train1$_$3",
    ]
    made = load_sentiment_file("mosi")
    assert made.facts["counts"] == {"train": 5, "valid": 4, "test": 4}
    assert made.facts["dropped"] == {"train": 3, "test": 1}
    assert any(w.startswith("left out: train: score") for w in made.facts["warnings"])
    kept = [0, 2, 4, 6, 7]
    for new, old in enumerate(kept):
        example = made.source("train")[new]
        steps = example["masks"]["audio"].sum()
        want = bad_file()["train"]["audio"][old][:steps]
        np.testing.assert_array_equal(example["inputs"]["audio"][:steps], want)


def test_the_same_file_with_and_without_an_option_is_two_imports(tmp_path):
    file = write(tmp_path / "x.pkl", mmsa())
    assert import_here(file).folder == import_here(file, drop_bad=True).folder
    bad = write(tmp_path / "y.pkl", equal_clips("train", "valid"))
    accepted = import_here(bad, equal_clips=True)
    assert accepted.folder != import_here(bad, drop_bad=True).folder


def test_a_long_list_of_bad_examples_is_cut_in_an_error_only(tmp_path):
    root = {}
    for split in COUNTS:
        scores = np.linspace(-3, 3, 600, dtype="f4")
        scores[::3] = 9
        root |= {
            f"{split}_audio": np.random.default_rng(len(split)).normal(
                size=(600, 2, 1)
            ),
            f"{split}_score": scores,
            f"{split}_id": np.array([f"{split[:2]}{i}$_$0" for i in range(600)]),
        }
    np.savez(tmp_path / "x.npz", **root)
    with pytest.raises(DataError, match="D79.* 600 examples") as caught:
        import_here(tmp_path / "x.npz")
    assert len(str(caught.value)) < 4000 and " more" in str(caught.value)
    found = find_problems(summarize_file(str(tmp_path / "x.npz"), "mosi"))
    assert all(f"example {i} '" in found.problems[0] for i in range(0, 600, 3))


def test_nothing_is_left_of_a_split(tmp_path):
    root = mmsa()
    root["valid"]["regression_labels"][:] = np.nan
    file = write(tmp_path / "x.pkl", root)
    with pytest.raises(DataError, match="D79.*leaves nothing of split 'valid'"):
        import_here(file, drop_bad=True)


def test_labels_that_teach_nothing_are_problems(tmp_path):
    root = mmsa()
    root["train"]["regression_labels"][:] = 1
    found = find_problems(import_here(write(tmp_path / "x.pkl", root)))
    assert "train: label 'score' is 1.0 in all 8 examples" in found.problems
    root = mult(emotions=True)
    root["train"]["labels"][:, 3] = (1, 0)
    found = find_problems(import_here(write(tmp_path / "y.pkl", root), "iemocap"))
    assert any("train: flags" in p and "angry" in p for p in found.problems)


def test_scores_that_are_yes_or_no_are_remarked(tmp_path):
    arrays = npz()
    for split, count in COUNTS.items():
        arrays[f"{split}_score"] = np.arange(count) % 2 == 0
    np.savez(tmp_path / "x.npz", **arrays)  # pyright: ignore[reportArgumentType]
    found = find_problems(import_here(tmp_path / "x.npz"))
    assert any("score is 0 or 1 in every example" in one for one in found.remarks)


def test_every_dataset_has_a_license_of_one_line(tmp_path):
    for spec in FEATURE_DATASETS.values():
        assert "\n" not in spec.license and ("." in spec.license)
    found = import_here(write(tmp_path / "x.pkl", mmsa()))
    assert found.license.startswith("CMU-MOSI: research use, terms: ")
    assert load_sentiment_file("mosi").facts["license"] == found.license
