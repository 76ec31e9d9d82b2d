"""Every example of docs/formats.md that converts another layout gives our npz."""

import csv
import os
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from feature_files import COUNTS, STEPS, lengths, mult, padded, rows, scores, write
from paths import ROOT

from mmfusion_jax.commands.check_features import format_report
from mmfusion_jax.data.datasets.sentiment_files import load_sentiment_file
from mmfusion_jax.data.feature_files.findings import find_problems
from mmfusion_jax.data.feature_files.importer import import_file
from mmfusion_jax.data.feature_files.reader import read_source
from mmfusion_jax.errors import ConfigError, DataError

PAGE = (ROOT / "docs" / "formats.md").read_text("utf-8")
CONVERT = PAGE.split("## Convert other files")[1].split("\n## ")[0]
FIRST_LINES = re.findall(r"```python\n(.*?)```", CONVERT.split("\n### ")[0], re.DOTALL)
FOLDS = {"train": "train", "valid": "dev", "test": "test"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path


def convert(section, number=0, change=lambda code: code):
    """Runs an example in the current folder, and reads what it wrote."""
    text = CONVERT.split(f"\n### {section}\n")[1].split("\n### ")[0]
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[number]
    exec(FIRST_LINES[0] + change(code), {})
    return read_source(Path("own.npz")).splits


def same(part, name, want):
    for got, one in zip(part.inputs[name], want, strict=True):
        np.testing.assert_array_equal(got, one)


def clips_of(split, name):
    return rows(split, name, lengths(split, name))


def named(path, message, section):
    """The file itself is refused, and the message names its section."""
    with pytest.raises(DataError, match=message) as caught:
        read_source(Path(path))
    assert f"section '{section}'" in caught.value.fix


def test_dialogues():
    names = {f"Ses0{s}_{k}": 4 for s in range(1, 6) for k in range(3)}
    rng = np.random.default_rng(0)
    each = lambda make: {v: [make(i) for i in range(n)] for v, n in names.items()}
    text, audio = each(lambda i: rng.normal(size=5)), each(lambda i: rng.normal(size=3))
    held_out = {v for v in names if v.startswith("Ses05")}
    root = (
        each(str),
        each(lambda i: "MF"[i % 2]),
        each(lambda i: [2, 5, 0, 4][i]),  # neutral, frustrated, happy, excited
        text,
        audio,
        each(lambda i: rng.normal(size=4)),
        each(lambda i: f"so {i}"),
        set(names) - held_out,
        held_out,
    )
    write(Path("IEMOCAP_features_raw.pkl"), root, 2)
    section = "DialogueRNN and COGMEN"
    named("IEMOCAP_features_raw.pkl", "dicts by dialogue", section)
    splits = convert(section)
    test = splits["test"]
    assert test.ids == tuple(f"Ses05_{k}$_${i}" for k in range(3) for i in (0, 2))
    assert test.labels["emotions"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]] * 3
    np.testing.assert_allclose(test.inputs["audio"][1][0], audio["Ses05_0"][2], 1e-6)
    in_train = {one.split("$_$")[0] for one in splits["train"].ids}
    in_valid = {one.split("$_$")[0] for one in splits["valid"].ids}
    assert in_valid and not in_train & in_valid
    assert in_train | in_valid == set(names) - held_out


def test_computational_sequences(monkeypatch):
    opened = {}

    class File(dict):
        """Stands for h5py.File: a name, and nested groups of arrays."""

        def __init__(self, name, mode):
            super().__init__({name: {"data": opened[name]}})

    monkeypatch.setitem(
        sys.modules,
        "h5py",
        types.SimpleNamespace(File=File),  # pyright: ignore
    )
    files = ("TimestampedWordVectors", "COVAREP", "Visual_Facet_42")
    steps = np.arange(8.0)
    intervals = np.stack([steps, steps + 1], axis=1)
    videos = {split: f"abc_{split}" for split in COUNTS}
    for width, file in enumerate(files, 2):
        values = np.outer(steps + 1, np.arange(1, width + 1))
        opened[f"CMU_MOSI_{file}.csd"] = {
            v: {"features": values, "intervals": intervals} for v in videos.values()
        }
    label = {
        "intervals": np.array([[0.0, 3.0], [3.0, 8.0]]),
        "features": np.array([[1.5], [-2.0]]),
    }
    opened["CMU_MOSI_Opinion_Labels.csd"] = dict.fromkeys(videos.values(), label)
    for split, one in videos.items():
        Path(f"{split}.txt").write_text(f"{one} another_video\n")
    splits = convert("HDF5 and csd")
    train = splits["train"]
    assert train.ids == ("abc_train$_$0", "abc_train$_$1")
    assert train.labels["score"].tolist() == [1.5, -2.0]
    assert [x[:, 0].tolist() for x in train.inputs["audio"]] == [
        [1, 2, 3],
        [4, 5, 6, 7, 8],
    ]
    Path("x.csd").write_bytes(b"\x89HDF\r\n\x1a\n")
    named("x.csd", "HDF5", "HDF5 and csd")


def table():
    """One row for each clip, as text."""
    return [
        {
            "id": f"{split}{i}",
            "split": split,
            "label": str(y),
            **{f"audio_{k}": str(i + k / 2) for k in range(3)},
            **{f"video_{k}": str(-i - k) for k in range(2)},
        }
        for split in COUNTS
        for i, y in enumerate(scores(split))
    ]


PANDAS = 'pandas.read_pickle("features.pkl").to_dict("records")'
PARQUET = 'pyarrow.parquet.read_table("features.parquet").to_pylist()'
FROM_CSV = "list(csv.DictReader(lines))"


@pytest.mark.parametrize("kind", ["csv", "pandas", "parquet"])
def test_tables(kind, monkeypatch):
    section, change = "Tables (csv, parquet, pandas)", lambda code: code
    assert PANDAS in CONVERT.replace("\n", " ") and PARQUET in CONVERT
    if kind == "csv":
        with open("features.csv", "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, table()[0])
            writer.writeheader()
            writer.writerows(table())
        named("features.csv", "text file, a table with the columns id, split", section)
    elif kind == "parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(table()), "features.parquet")
        change = lambda code: (
            "import pyarrow.parquet\n" + code.replace(FROM_CSV, PARQUET)
        )
        named("features.parquet", "a parquet file", section)
    else:
        frame = types.SimpleNamespace(to_dict=lambda form: table())
        module = types.SimpleNamespace(read_pickle=lambda file: frame)
        monkeypatch.setitem(sys.modules, "pandas", module)  # pyright: ignore
        change = lambda code: code.replace(FROM_CSV, PANDAS)
    Path("features.csv").touch()  # which the first line reads in any case
    imported = {"pandas": "import pandas\n", "parquet": "import pyarrow.parquet\n"}
    splits = convert(section, change=lambda c: imported.get(kind, "") + change(c))
    for split, count in COUNTS.items():
        part = splits[split]
        np.testing.assert_allclose(part.labels["score"], scores(split))
        assert part.ids == tuple(f"{split}{i}" for i in range(count))
        assert [len(x) for x in part.inputs["audio"]][1:] == [1] * (count - 1)
        np.testing.assert_array_equal(part.inputs["audio"][1], [[1, 1.5, 2]])


def test_matlab():
    data = {}
    for split in COUNTS:
        data[f"{split}_score"] = scores(split)
        for name in STEPS:
            data[f"{split}_{name}"] = padded(clips_of(split, name), STEPS[name])
    scipy.io.savemat("features.mat", data)
    named("features.mat", "a MATLAB file", "MATLAB")
    splits = convert("MATLAB")
    for split, part in splits.items():
        np.testing.assert_array_equal(part.labels["score"], scores(split))
        for name in STEPS:
            same(part, name, clips_of(split, name))


@pytest.mark.ci
def test_torch():
    torch = pytest.importorskip("torch")
    section = "torch and joblib"
    root = {
        split: {
            key: torch.tensor(np.ascontiguousarray(table[key][:, ::-1]))
            for key in ("text", "audio", "vision", "labels")
        }
        for split, table in mult().items()
    }
    for new in (True, False):
        torch.save(root, "features.pt", _use_new_zipfile_serialization=new)
        named("features.pt", "a file of torch.save", section)
    splits = convert(section)
    np.testing.assert_array_equal(splits["test"].labels["score"], scores("test"))
    same(splits["valid"], "audio", [x[::-1] for x in clips_of("valid", "audio")])


def test_joblib_files_are_named():
    joblib = pytest.importorskip("joblib")
    for compress, message in ((0, "NumpyArrayWrapper"), (3, "zlib")):
        joblib.dump({"train": np.ones((40, 50))}, "x.pkl", compress=compress)
        with pytest.raises(DataError, match=rf"{message}[\s\S]*joblib"):
            read_source(Path("x.pkl"))


def test_humor_by_id():
    folds, start = {}, 0
    for split, name in FOLDS.items():
        folds[name] = list(range(start, start + COUNTS[split]))
        start += COUNTS[split]
    number = {i: split for split, name in FOLDS.items() for i in folds[name]}
    punchlines = lambda name: {
        i: {
            "punchline_features": clips_of(split, name)[
                i - folds[FOLDS[split]][0]
            ].tolist(),
            "context_features": [],
        }
        for i, split in number.items()
    }
    write(Path("data_folds.pkl"), folds)
    write(Path("humor_label_sdk.pkl"), {i: i % 2 for i in number})
    write(Path("covarep_features_sdk.pkl"), punchlines("audio"))
    write(Path("openface_features_sdk.pkl"), punchlines("video"))
    section = "UR-FUNNY and MUStARD (HKT)"
    named("data_folds.pkl", "ids of each split", section)
    named("covarep_features_sdk.pkl", "punchlines and contexts", section)
    splits = convert(section)
    for split in COUNTS:
        same(splits[split], "audio", clips_of(split, "audio"))
        same(splits[split], "video", clips_of(split, "video"))
        want = [2 * (i % 2) - 1 for i in folds[FOLDS[split]]]
        assert splits[split].labels["score"].tolist() == want


def test_humor_examples():
    root = {
        name: [
            ((list(range(len(v))), v, a, a), ([], [], [], []), f"{name}_{i}", i % 2)
            for i, (v, a) in enumerate(
                zip(clips_of(split, "video"), clips_of(split, "audio"), strict=True)
            )
        ]
        for split, name in FOLDS.items()
    }
    write(Path("ur_funny.pkl"), root)
    section = "UR-FUNNY and MUStARD (HKT)"
    named("ur_funny.pkl", "punchline, context, id, label", section)
    splits = convert(section, 1)
    for split, name in FOLDS.items():
        same(splits[split], "video", clips_of(split, "video"))
        same(splits[split], "audio", clips_of(split, "audio"))
        assert splits[split].ids[1] == f"{name}_1$_$0"
        assert splits[split].labels["score"].tolist()[:2] == [-1, 1]


def test_emotions_of_hhmpn():
    flags = {
        split: np.random.default_rng(1).integers(0, 2, (n, 6))
        for split, n in COUNTS.items()
    }
    root = {
        split: {
            "src-text": padded(clips_of(split, "text"), STEPS["text"]),
            "src-audio": padded(clips_of(split, "audio"), STEPS["audio"]),
            "src-visual": padded(clips_of(split, "video"), STEPS["video"]),
            "label": flags[split],
        }
        for split in COUNTS
    }
    write(Path("mosei_emotion_aligned_60.pkl"), root)
    named("mosei_emotion_aligned_60.pkl", "no sentiment scores", "HHMPN")
    splits = convert("HHMPN")
    for split, part in splits.items():
        same(part, "video", clips_of(split, "video"))
        anger, disgust, fear, happy, sad, surprise = flags[split].T
        want = np.stack([happy, sad, anger, surprise, disgust, fear], axis=1)
        np.testing.assert_array_equal(part.labels["emotions"], want)
    check_emotions_only(splits)


def check_emotions_only(splits):
    """Imports own.npz, without scores, as CMU-MOSEI."""
    parent = Path(os.environ["MMFUSION_CACHE"]) / "imported" / "mosei"
    found = import_file("own.npz", "mosei", str(parent), False)
    assert not any("score" in line for line in find_problems(found).problems)
    assert "baseline on test (majority answer of each flag)" in format_report(found)
    made = load_sentiment_file("mosei", label="emotions")
    assert made.classes == made.values == {}
    np.testing.assert_array_equal(
        made.label("valid", "emotions"), splits["valid"].labels["emotions"]
    )
    assert made.title.startswith("CMU-MOSEI, 6 yes/no emotions (npz-")
    assert load_sentiment_file("mosei").title == made.title
    one = load_sentiment_file("mosei", label="emotion")
    assert set(one.classes) == {"emotion"}
    for label in ("score", "polarity"):
        with pytest.raises(ConfigError, match="C07.*own.npz has emotions and no scor"):
            load_sentiment_file("mosei", label=label)
    with pytest.raises(DataError, match="D74.*expected for CMU-MOSI: score"):
        import_file("own.npz", "mosi", str(parent), False)


def test_splits_of_each_emotion():
    emotions = ("happy", "sad", "angry", "neutral")
    flags = {
        s: np.random.default_rng(2).integers(0, 2, (n, 4)) for s, n in COUNTS.items()
    }
    root = {}
    for k, emotion in enumerate(emotions):
        root[emotion.encode()] = [
            {
                b"Text": padded(clips_of(split, "text"), STEPS["text"]),
                b"Audio": np.stack([x[0] for x in clips_of(split, "audio")]),
                b"Vision": np.stack([x[0] for x in clips_of(split, "video")]),
                b"labels": np.eye(2)[flags[split][:, k]],
            }
            for split in COUNTS
        ]
    write(Path("iemocap.pkl"), root, 2)
    named("iemocap.pkl", "three splits for each emotion", "LMF")
    splits = convert("LMF")
    for split, part in splits.items():
        same(part, "text", clips_of(split, "text"))
        same(part, "audio", [x[:1] for x in clips_of(split, "audio")])
        np.testing.assert_array_equal(
            part.labels["emotions"], flags[split][:, [3, 0, 1, 2]]
        )


def test_padded_utterances():
    counts = {"train": [3, 1, 2, 3], "test": [2, 3]}
    rng = np.random.default_rng(3)
    for name, width in (("text", 4), ("audio", 3), ("video", 2)):
        root = []
        for n in counts.values():
            labels = np.arange(len(n) * 3).reshape(len(n), 3) % 2
            root += [rng.normal(size=(len(n), 3, width)), labels]
        write(Path(f"{name}.pickle"), (*root, 3, *counts.values()), 2)
    named("audio.pickle", "bc-LSTM", "bc-LSTM")
    splits = convert("bc-LSTM")
    want = pickle.loads(Path("audio.pickle").read_bytes())[2]
    same_steps = [want[0, :2], want[1, :3]]
    got = np.concatenate(splits["test"].inputs["audio"])
    np.testing.assert_allclose(got, np.concatenate(same_steps), 1e-6)
    assert len(splits["train"]) + len(splits["valid"]) == 9
    assert splits["test"].labels["score"].tolist() == [-1, 1, 1, -1, 1]


def test_any_other_file():
    for split, count in COUNTS.items():
        Path(split).mkdir()
        for i, one in enumerate(clips_of(split, "audio")):
            np.save(f"{split}/{i}.audio.npy", one)
        np.savetxt(f"{split}_scores.txt", scores(split))
        names = "\n".join(f"{split}{i}$_$0" for i in range(count))
        Path(f"{split}_ids.txt").write_text(names)
    splits = convert("Any other file")
    for split, part in splits.items():
        same(part, "audio", clips_of(split, "audio"))
        np.testing.assert_allclose(part.labels["score"], scores(split), 1e-6)


def test_every_section_that_a_message_names_exists():
    text = "".join(
        one.read_text("utf-8")
        for one in (ROOT / "mmfusion_jax").rglob("*.py")
        if "formats.md" in one.read_text("utf-8") or one.name == "other_formats.py"
    )
    quoted = re.findall(r"\.format\(\s*\"([^\"]+)\"\s*\)|section '([^'{]+)'", text)
    names = {one or other for one, other in quoted}
    assert {"HHMPN", "LMF", "MATLAB", "Any other file"} <= names
    for name in names:
        assert re.search(rf"^### {re.escape(name)}", PAGE, re.MULTILINE), name
