"""Files of MISA and MAG-BERT, whose text is words or word ids: import and training."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from feature_files import mmim, write, write_mmim
from groups import in_ci
from paths import ROOT
from traced_models import traced_loss

from mmfusion_jax.config import build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.datasets.sentiment_files import load_sentiment_file
from mmfusion_jax.data.feature_files.import_manifest import open_import
from mmfusion_jax.data.feature_files.importer import import_file
from mmfusion_jax.data.fingerprint import fingerprint
from mmfusion_jax.errors import DataError

CONFIG = ROOT / "configs" / "mea.py"
SMALL = {
    "data.batch_size": 4,
    "data.text": "words",
    "model.num_heads": 2,
    "model.psa_layers": 2,
    "model.hca_layers": 1,
    "model.hidden_dim": 8,
    "model.encoders.text.hidden_dim": 8,
    "model.encoders.audio.hidden_dim": 8,
    "model.encoders.video.hidden_dim": 8,
    "train.epochs": 1,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache, and a folder for the log."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "imported"


def words_as_text(path: Path) -> Path:
    """One file with three lists, in which the words are texts."""
    root = {}
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        root[name] = [
            (([f"w{k}" for k in x[0]], *x[1:3]), *rest) for x, *rest in mmim(split)
        ]
    return write(path, root)


@pytest.mark.parametrize("kind", in_ci(["ids", "texts"], "texts"))
def test_a_model_has_a_loss_on_words(tmp_path, cache, kind):
    make = write_mmim if kind == "ids" else words_as_text
    import_file(str(make(tmp_path / "MOSI")), "mosi", str(cache / "mosi"), False)
    config = load_config(f"{CONFIG}:mosi").copy_and_resolve_references()
    config.unlock()
    config.update_from_flattened_dict(SMALL)
    config.model.encoders.text.vocab_size = 7
    spec = resolve(config)
    data = build_data.build_dataset(spec, 0)
    build_data.check_ids(spec, data)
    assert data.id_range("text") == (1, 6)
    _, loss = traced_loss(spec, data)
    assert loss.shape == ()


@pytest.mark.slow
def test_a_folder_of_misa_is_imported_and_trained_on(tmp_path):
    folder = write_mmim(tmp_path / "MOSI")
    python = [sys.executable, "-m"]
    words = ["mmfusion_jax", "data", "import", str(folder), "--dataset=mosi"]
    subprocess.run([*python, *words], check=True, timeout=300)
    flags = {**SMALL, "model.encoders.text.vocab_size": 7}
    words = ["mmfusion_jax.main", f"--config={CONFIG}:mosi", "--workdir=run"]
    words += [f"--config.{name}={value}" for name, value in flags.items()]
    subprocess.run([*python, *words], check=True, timeout=900)
    result = json.loads(Path("run/result.json").read_text())
    assert result["data"]["facts"]["prepared"].startswith("mmim-")


def word_import(tmp_path, cache, old="", new=""):
    """Data of an import of a file in which a word can be another one."""
    path = words_as_text(tmp_path / f"x{new}.pkl")
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    found = import_file(str(path), "mosi", str(cache / "mosi"), False)
    name = Path(found.folder).name
    return load_sentiment_file("mosi", file=name, text="words"), found.folder


def test_the_words_of_an_import_are_stored_for_a_predictor(tmp_path, cache):
    data, folder = word_import(tmp_path, cache)
    manifest = json.loads((Path(folder) / "MANIFEST.json").read_text())
    words = {f"w{k}" for x, *_ in mmim("train") for k in x[0]}
    assert manifest["vocabulary"] == sorted(words)
    tokenizer = data.preprocessing.tokenizer
    assert tokenizer is not None and not tokenizer.lowercase
    # The ids of the first example are the positions of its words.
    example = data.source("train")[0]
    ids = example["inputs"]["text"][example["masks"]["text"]]
    (first, *_), *_ = mmim("train")[0]
    assert [tokenizer.vocabulary[i] for i in ids] == [f"w{k}" for k in first]
    assert tokenizer.length == len(example["inputs"]["text"])
    # Without words as text there are none.
    write_mmim(tmp_path / "MOSI")
    found = import_file(str(tmp_path / "MOSI"), "mosi", str(cache / "mosi"), False)
    ids_only = load_sentiment_file("mosi", file=Path(found.folder).name, text="words")
    assert ids_only.preprocessing.tokenizer is None


def test_another_vocabulary_is_another_fingerprint(tmp_path, cache):
    """Even if every word id stays the same."""
    one, _ = word_import(tmp_path, cache)
    other, _ = word_import(tmp_path, cache, "w6", "w9")
    first, second = fingerprint(one), fingerprint(other)
    assert first.vocabulary and first.vocabulary != second.vocabulary
    texts = [data.source("train")[0]["inputs"]["text"] for data in (one, other)]
    np.testing.assert_array_equal(*texts)


def test_words_that_do_not_fit_the_ids_are_a_damaged_manifest(tmp_path, cache):
    _, folder = word_import(tmp_path, cache)
    path = Path(folder) / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    for words in (manifest["vocabulary"][:2], [*manifest["vocabulary"], "w1"]):
        path.write_text(json.dumps({**manifest, "vocabulary": words}))
        with pytest.raises(DataError, match="D21.*vocabulary"):
            open_import(Path(folder), "mosi")
