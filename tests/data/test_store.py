"""Stores are complete or absent, deterministic, and checked for damage."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    cache_folder,
    open_store,
    write_store,
)
from mmfusion_jax.errors import DataError

FEATURES = {
    "video": FeatureSpec((None, 4, 5, 3), "uint8"),
    "audio": FeatureSpec((None, 13)),
    "flat": FeatureSpec((6, 6), "uint8"),
    "label": FeatureSpec((), "int64"),
    "name": FeatureSpec((), "str"),
}


def example(index):
    rng = np.random.default_rng(index)
    return {
        "video": rng.integers(0, 256, (index + 1, 4, 5, 3), dtype=np.uint8),
        "audio": rng.normal(size=(index, 13)).astype(np.float32),
        "flat": np.full((6, 6), index, np.uint8),
        "label": index,
        "name": f"clip {index} é",
    }


def write(folder, count=5, manifest=None):
    splits = {"train": map(example, range(count)), "test": map(example, range(2))}
    write_store(folder, FEATURES, splits, manifest or {"recipe": "v1"})


def test_gives_back_what_was_written_in_order(tmp_path):
    write(tmp_path / "s")
    store = open_store(tmp_path / "s")
    source = store.source("train")
    assert len(source) == 5 and len(store.source("test")) == 2
    for index in (3, 0, 4):
        got, want = source[index], example(index)
        assert got.keys() == want.keys() and got["name"] == want["name"]
        for name in ("video", "audio", "flat", "label"):
            np.testing.assert_array_equal(got[name], want[name])
            assert np.asarray(got[name]).dtype == FEATURES[name].dtype
    with pytest.raises(IndexError):
        source[5]


def test_the_manifest_records_the_inputs(tmp_path):
    notes = {}

    def examples():
        yield example(1)
        notes["skipped"] = ["bad.mp4"]

    write_store(tmp_path / "s", FEATURES, {"train": examples()}, notes)
    manifest = open_store(tmp_path / "s").manifest
    assert manifest["skipped"] == ["bad.mp4"]
    assert manifest["counts"] == {"train": 1}
    assert manifest["features"]["video"]["shape"] == [None, 4, 5, 3]


def test_two_builds_are_the_same_bytes(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "b").iterdir())
    for name in names:
        one, two = (tmp_path / "a" / name), (tmp_path / "b" / name)
        assert one.read_bytes() == two.read_bytes(), name


def test_a_failed_build_leaves_nothing(tmp_path):
    def examples():
        yield example(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "s", FEATURES, {"train": examples()}, {})
    assert [file.name for file in tmp_path.iterdir()] == [".s.lock"]


SLOW_BUILD = """
import sys, time
from pathlib import Path
from mmfusion_jax.data.storage.array_record_store import FeatureSpec, write_store

def examples():
    yield {"label": 1}
    print("started", flush=True)
    time.sleep(float(sys.argv[2]))

write_store(Path(sys.argv[1]), {"label": FeatureSpec((), "int64")},
            {"train": examples()}, {})
"""


def start(folder, seconds):
    command = [sys.executable, "-c", SLOW_BUILD, str(folder), str(seconds)]
    build = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert build.stdout and build.stdout.readline() == b"started\n"
    build.stdout.close()
    return build


def test_the_next_build_removes_a_killed_one(tmp_path):
    build = start(tmp_path / "s", 60)
    os.kill(build.pid, signal.SIGKILL)
    build.wait()
    assert len(list(tmp_path.glob(".s.building-*"))) == 1
    with pytest.raises(DataError, match="D20"):
        open_store(tmp_path / "s")
    write(tmp_path / "s")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".s.lock", "s"]
    assert len(open_store(tmp_path / "s").source("train")) == 5


def test_the_second_of_two_builders_waits_and_uses_the_first_store(tmp_path):
    build = start(tmp_path / "s", 0.5)
    began = time.monotonic()
    write_store(tmp_path / "s", {}, {"train": iter([])}, {})
    assert time.monotonic() - began > 0.2
    assert build.wait() == 0
    assert open_store(tmp_path / "s").source("train")[0]["label"] == 1


def test_damage_is_reported_with_a_fix(tmp_path):
    folder = tmp_path / "s"
    for damage, message in [
        (lambda f: f.write_bytes(f.read_bytes()[:-9]), r"has \d+ of \d+ bytes"),
        (lambda f: f.unlink(), "array_record-00000 is missing"),
        (lambda f: (folder / "MANIFEST.json").write_text("{"), "MANIFEST.json"),
        (lambda f: (folder / "MANIFEST.json").write_text("[]"), "MANIFEST.json"),
        (lambda f: (folder / "MANIFEST.json").unlink(), "MANIFEST.json"),
    ]:
        write(folder)
        damage(folder / "examples-train.array_record-00000")
        with pytest.raises(
            DataError, match=rf"D21.*{message}[\s\S]*fix: delete {folder}"
        ):
            open_store(folder)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_a_flipped_bit_is_not_read_as_data(tmp_path):
    write(tmp_path / "s")
    shard = tmp_path / "s" / "examples-train.array_record-00000"
    content = bytearray(shard.read_bytes())
    content[content.index(b"clip 2")] ^= 1
    shard.write_bytes(content)
    source = open_store(tmp_path / "s").source("train")
    with pytest.raises(DataError, match="D21.*example 2 is not readable"):
        source[2]


def test_empty_splits_and_unsupported_types_are_rejected(tmp_path):
    with pytest.raises(DataError, match="D23.*'valid'"):
        write_store(tmp_path / "s", FEATURES, {"valid": iter([])}, {})
    with pytest.raises(ValueError, match="float64"):
        FeatureSpec((), "float64")
    with pytest.raises(ValueError, match="first axis"):
        FeatureSpec((3, None))


@pytest.mark.skipif(os.getuid() == 0, reason="root can write everywhere")
def test_a_folder_that_is_not_writable_is_an_error(tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(DataError, match="D22"):
        write(tmp_path / "shut" / "s")


def test_the_environment_variable_sets_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path))
    assert cache_folder("digits") == tmp_path / "digits"
    monkeypatch.delenv("MMFUSION_CACHE")
    assert cache_folder("digits").parts[-3:] == (".cache", "mmfusion_jax", "digits")


def test_imports_neither_jax_nor_tensorflow():
    check = (
        "import sys, mmfusion_jax.data.storage.array_record_store\n"
        "assert not {'jax', 'tensorflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_store_of_another_module_opens(tmp_path):
    """A store contains the name of the module that wrote it, which may have moved."""
    write(tmp_path / "s")
    info = tmp_path / "s" / "dataset_info.json"
    moved = info.read_text().replace("storage.array_record_store", "store")
    assert '"mmfusion_jax.data.store"' in moved
    info.write_text(moved)
    manifest = json.loads((tmp_path / "s" / "MANIFEST.json").read_text())
    manifest["files"]["dataset_info.json"] = info.stat().st_size
    (tmp_path / "s" / "MANIFEST.json").write_text(json.dumps(manifest))
    assert open_store(tmp_path / "s").source("train")[1]["label"] == 1


def test_the_manifest_is_plain_json(tmp_path):
    write(tmp_path / "s", manifest={"b": 1, "a": [2]})
    text = (tmp_path / "s" / "MANIFEST.json").read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
