"""Files that are replaced by others of the same size and time of modification."""

import os
import shutil

import pytest
from media_files import tone, write_wav

from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.datasets.deap import prepare
from mmfusion_jax.data.media.wordpiece import read_vocabulary
from mmfusion_jax.data.storage import file_checksums as module
from mmfusion_jax.data.storage.file_checksums import file_checksums, file_state


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache, which keeps the checksums of new files too."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_SETTLED_NS", -(10**12))


def replace(file, write, how):
    """Replaces a file by another one of equal size and time."""
    before = file.stat()
    other = file.with_name(f"other_{file.name}")
    write(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    if how == "copy":  # as cp -p
        shutil.copy2(other, file)
        other.unlink()
    else:  # as rsync -t
        other.replace(file)
    after = file.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


@pytest.mark.parametrize("how", ["copy", "rename"])
def test_another_file_has_another_checksum(tmp_path, how):
    file = tmp_path / "a.bin"
    file.write_bytes(b"a" * 100)
    first, state = file_checksums([file, file])[file], file_state(file)
    replace(file, lambda other: other.write_bytes(b"a" * 50 + b"b" + b"a" * 49), how)
    assert file_checksums([file])[file] != first and file_state(file) != state


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    files = [tmp_path / "a.bin", tmp_path / "more" / "a.bin"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(file.parent.name.encode())
    found = file_checksums(files)
    assert len(set(found.values())) == 2
    with monkeypatch.context() as context:
        context.setattr(module, "_sha256", lambda file: pytest.fail("read again"))
        assert file_checksums(files) == found
    # A damaged list of checksums is made again.
    for path in (tmp_path / "cache" / "checksums").iterdir():
        path.write_text("[1")
    assert file_checksums(files) == found
    # So is that of a file that may still be written.
    monkeypatch.setattr(module, "_SETTLED_NS", 10**12)
    files[0].write_bytes(b"more")
    assert file_checksums(files)[files[0]] != found[files[0]]
    monkeypatch.setattr(module, "_sha256", lambda file: "read again")
    assert file_checksums(files) == {files[0]: "read again", files[1]: found[files[1]]}


@pytest.mark.parametrize("how", ["copy", "rename"])
def test_a_clip_that_is_replaced_is_decoded_again(tmp_path, how):
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = ["file,label,split"]
    for i in range(4):
        write_wav(folder / f"{i}.wav", tone(0.2, 300 + 50 * i))
        rows.append(f"{i}.wav,{'ab'[i % 2]},{'train' if i < 2 else 'test'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    options = {"modalities": ("audio",), "sample_rate": 16000, "workers": 0}
    options |= {"audio_features": "waveform"}
    source = load_clips(str(folder), **options).source("train")
    replace(folder / "0.wav", lambda other: write_wav(other, tone(0.2, 800)), how)
    again = load_clips(str(folder), **options).source("train")
    new, old = (x[0]["inputs"]["audio"] for x in (again, source))
    assert abs(new - old).max() > 0.1
    assert again.content_digest() != source.content_digest()  # pyright: ignore
    again = load_clips(str(folder), **options).source("train")
    assert (again[0]["inputs"]["audio"] == new).all()


def test_a_pickle_of_a_participant_that_is_replaced_is_prepared_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(prepare, "open_store", lambda folder: folder)
    monkeypatch.setattr(prepare, "run_sandboxed", lambda *_, **__: None)
    file = tmp_path / "s01.dat"
    file.write_bytes(b"a" * 100)
    first = prepare.open_or_prepare(file)
    assert prepare.open_or_prepare(file) == first
    replace(file, lambda other: other.write_bytes(b"b" * 100), "copy")
    assert prepare.open_or_prepare(file) != first


def test_a_vocabulary_that_is_replaced_is_read_again(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("[UNK]\nso\n")
    assert read_vocabulary(str(file)) == ("[UNK]", "so")
    replace(file, lambda other: other.write_text("[UNK]\nno\n"), "copy")
    assert read_vocabulary(str(file)) == ("[UNK]", "no")
