"""Files of MISA and MAG-BERT, whose text is words or word ids: import and training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from feature_files import mmim, write, write_mmim
from groups import in_ci
from paths import ROOT
from traced_models import traced_loss

from mmfusion_jax.config import build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.feature_files.importer import import_file

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
