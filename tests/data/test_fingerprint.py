"""Fingerprints name what changed in the data, and nothing else."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from media_files import tone, write_wav

from mmfusion_jax.data import array_record_store
from mmfusion_jax.data.dataset import Dataset, RegressionTarget
from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.fingerprint import MAX_HASHED, fingerprint
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.preprocessing import (
    MinMaxScaler,
    PixelStandardizer,
    Standardizer,
    scaler_of,
)
from mmfusion_jax.errors import DataError
from mmfusion_jax.results.json_file import as_read
from mmfusion_jax.results.predictor_file import Preprocessing
from mmfusion_jax.results.run_identity import data_differences


class Read:
    """Examples without a digest, which a fingerprint must read."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index]


def made(
    read: bool = False, shift: float = 0.0, scale: float = 1.0, **parts
) -> Dataset:
    """A dataset of two splits; what `parts` does not give is the same every time.

    Args:
        read: Hide the digest of the sources.
        shift: Added to one value of the test split.
        scale: Standard deviation of the standardizer.
        **parts: Fields of the dataset.
    """
    sources = {}
    for number, split in enumerate(("train", "test")):
        rng = np.random.default_rng(number)
        audio = rng.normal(size=(6, 4, 2)).astype(np.float32)
        audio[3, 1, 0] += shift * number
        labels = {"tone": np.arange(6) % 2, "level": np.linspace(-1, 1, 6)}
        masks = {"audio": np.ones((6, 4), bool)}
        source = InMemory({"audio": audio}, masks, labels)
        sources[split] = Read(source) if read else source
    scaling = Standardizer(np.zeros(2), np.full(2, scale)).scaling
    fields = {
        "sources": sources,
        "classes": {"tone": ("low", "high")},
        "values": {"level": RegressionTarget(-1, 1)},
        "example_ids": {split: [f"{split}{i}" for i in range(6)] for split in sources},
        "preprocessing": Preprocessing({"audio": scaling}),
    }
    return Dataset("tones", "Tones", **{**fields, **parts})


def rows(split: str, chosen) -> dict:
    """Fields of a dataset with some rows of one split."""
    data = made()
    ids = {**data.example_ids, split: [data.example_ids[split][i] for i in chosen]}
    some = data.sources[split].rows(np.array(chosen))
    return {"sources": {**data.sources, split: some}, "example_ids": ids}


def relabeled() -> dict:
    sources = made().sources
    labels = {**sources["train"].labels, "tone": np.array([1, 1, 0, 1, 0, 1])}
    return {
        "sources": {
            **sources,
            "train": dataclasses.replace(sources["train"], labels=labels),
        }
    }


def masked() -> dict:
    sources = made().sources
    mask = np.ones((6, 4), bool)
    mask[2, 3] = False
    train = dataclasses.replace(sources["train"], masks={"audio": mask})
    return {"sources": {**sources, "train": train}}


CHANGES = {
    "one class": (
        {"classes": {"tone": ("low", "loud")}},
        ["classes of label 'tone': class 1 is 'high', now 'loud'"],
    ),
    "a class more": (
        {"classes": {"tone": ("low", "high", "loud")}},
        ["classes of label 'tone': 2, now 3"],
    ),
    "a range": (
        {"values": {"level": RegressionTarget(-1, 3)}},
        ["range of a numeric label"],
    ),
    "one value": ({"shift": 1e-6}, ["content of split 'test'"]),
    "a mask": (masked(), ["content of split 'train'"]),
    "one label": (relabeled(), ["label 'tone' of split 'train'"]),
    "an example less": (
        rows("train", range(5)),
        ["split 'train': 6 examples, now 5"],
    ),
    "the order": (
        rows("test", [2, 1, 0, 3, 4, 5]),
        [
            "ids of split 'test'",
            "label 'level' of split 'test'",
            "content of split 'test'",
        ],
    ),
    "the scaling": ({"scale": 2.0}, ["standardization of audio"]),
    "the name": ({"example_ids": {}}, ["ids of split 'train'", "ids of split 'test'"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named(name):
    parts, want = CHANGES[name]
    old, new = fingerprint(made()), fingerprint(made(**parts))
    assert old == as_read(fingerprint(made()))
    assert data_differences(old, new) == want
    assert data_differences(new, new) == []


def test_examples_are_read_where_no_digest_is_given():
    old = fingerprint(made(read=True))
    assert data_differences(old, fingerprint(made(read=True))) == []
    new = fingerprint(made(read=True, shift=1e-6))
    assert data_differences(old, new) == ["content of split 'test'"]
    labels = {split: source.labels for split, source in made().sources.items()}
    assert fingerprint(made(read=True, labels=labels)) == old
    sources = made(read=True).sources
    broken = {**sources, "test": [*sources["test"], "no example"]}
    with pytest.raises(DataError, match="D25.*example 6 of split 'test'"):
        fingerprint(made(sources=broken, example_ids={}))


def test_of_many_examples_some_are_read():
    class Many(Read):
        def __len__(self):
            return 10 * MAX_HASHED

        def __getitem__(self, index):
            seen.add(index)
            return self.source[index % 6]

    seen: set[int] = set()
    data = made()
    sources = {**data.sources, "train": Many(data.sources["train"])}
    labels = {
        "tone": np.zeros(10 * MAX_HASHED, int),
        "level": np.zeros(10 * MAX_HASHED),
    }
    given = {"train": labels, "test": data.sources["test"].labels}
    found = fingerprint(made(sources=sources, labels=given, example_ids={}))
    assert found.splits["train"].hashed == MAX_HASHED == len(seen - {0}) + 1
    assert found.splits["train"].count == 10 * MAX_HASHED


def test_scaling_is_stored_and_read_back():
    x = np.random.default_rng(0).normal(3, 2, (5, 3)).astype(np.float32)
    standardizer = Standardizer(x.mean(0), x.std(0))
    scaler = MinMaxScaler(x.min(0).astype(float), x.max(0).astype(float))
    for one in (standardizer, scaler):
        again = scaler_of(as_read(one.scaling))
        np.testing.assert_array_equal(again(x), one(x))
    frames = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    pixels = PixelStandardizer(standardizer)
    again = scaler_of(as_read(pixels.scaling))
    np.testing.assert_array_equal(again(frames), pixels(frames))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_clips_may_move_and_may_not_change(tmp_path):
    options = {"modalities": ("audio",), "sample_rate": 16000, "workers": 0}

    def load(folder):
        return fingerprint(load_clips(str(folder), **options))

    folder = tmp_path / "clips"
    folder.mkdir()
    for i in range(4):
        write_wav(folder / f"{i}.wav", tone(0.3, 200 + 100 * i))
    head = "file,label,split\n"
    lines = [f"{i}.wav,{'ab'[i % 2]},{'train' if i < 2 else 'test'}" for i in range(4)]
    (folder / "labels.csv").write_text(head + "\n".join(lines))
    old = load(folder)
    assert load(shutil.copytree(folder, tmp_path / "elsewhere")) == old
    renamed = head + "\n".join(line.replace(",b,", ",c,") for line in lines)
    (folder / "labels.csv").write_text(renamed)
    assert data_differences(old, load(folder)) == [
        "classes of label 'label': class 1 is 'b', now 'c'"
    ]
    (folder / "labels.csv").write_text(head + "\n".join(lines))
    write_wav(folder / "3.wav", tone(0.3, 900))
    assert data_differences(old, load(folder)) == ["content of split 'test'"]


def test_a_store_has_a_digest_of_its_examples(tmp_path):
    features = {"x": array_record_store.FeatureSpec((2,))}

    def build(name: str, value: float):
        examples = {"train": [{"x": np.array([1, value], np.float32)}]}
        array_record_store.write_store(tmp_path / name, features, examples, {})
        return array_record_store.open_store(tmp_path / name)

    one, same, other = build("a", 2.0), build("b", 2.0), build("c", 3.0)
    assert one.digest() == same.digest() != other.digest()
    digests = []
    for store in (one, other):  # as an older version of the library built them
        path = store.folder / array_record_store.MANIFEST
        manifest = json.loads(path.read_text())
        del manifest["content"]
        path.write_text(json.dumps(manifest))
        digests.append(array_record_store.open_store(store.folder).digest())
    assert len({*digests, one.digest()}) == 3
