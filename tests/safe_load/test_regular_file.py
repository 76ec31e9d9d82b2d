"""Files that are not regular are refused at once, by every reader of files."""

import os
import socket
from pathlib import Path

import pytest

from mmfusion_jax.data.feature_files.reader import list_files, read_source
from mmfusion_jax.data.media.file_checks import check_header
from mmfusion_jax.data.media.labels_csv import read_labels
from mmfusion_jax.errors import DataError, UserError, WeightsError
from mmfusion_jax.safe_load.npz import read_npz
from mmfusion_jax.safe_load.regular_file import open_regular
from mmfusion_jax.safe_load.safe_pickle import read_pickle
from mmfusion_jax.weights.files import read
from mmfusion_jax.weights.torch_checkpoint import read_torch

READERS = {
    "pickle": read_pickle,
    "npz": read_npz,
    "feature file": read_source,
    "list": list_files,
    "labels": lambda path: read_labels(path, path.parent),
    "clip": check_header,
    "torch": read_torch,
    "weights": lambda path: read(path, "export"),
    "safetensors": lambda path: read(path.rename(f"{path}.safetensors"), "export"),
}
KINDS = {"fifo": "is a FIFO", "socket": "is a socket", "device": "is a device"}
KINDS |= {"folder": "is a folder", "absent": "does not exist", "loop": "cannot be read"}


def make(kind: str, path: Path) -> None:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(os.path.relpath(path))  # a long path is not allowed
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_every_reader_refuses_other_files(tmp_path, monkeypatch, kind, reader):
    monkeypatch.chdir(tmp_path)
    make(kind, tmp_path / "file")
    with pytest.raises(UserError, match=KINDS[kind]) as caught:
        READERS[reader](tmp_path / "file")
    weights = isinstance(caught.value, WeightsError)
    assert caught.value.code == ("W01" if weights else "D30")


@pytest.mark.parametrize("kind", KINDS)
def test_the_message_shows_the_kind(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make(kind, tmp_path / "file")
    with pytest.raises(DataError, match=KINDS[kind]) as caught:
        open_regular(tmp_path / "file")
    assert caught.value.code == "D30"


def test_a_file_that_is_replaced_before_it_is_opened(tmp_path, monkeypatch):
    make("fifo", tmp_path / "file")
    monkeypatch.setattr("mmfusion_jax.safe_load.regular_file.check_regular", bool)
    with pytest.raises(DataError, match="is a FIFO"):
        open_regular(tmp_path / "file")
