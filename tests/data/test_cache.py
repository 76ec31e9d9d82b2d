"""Stores in the cache: what they are, whatever wrote them."""

import json
import time

import pytest

from mmfusion_jax.data.cache import find_store, list_stores, remove_store
from mmfusion_jax.errors import DataError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A cache with a store of one file, one of several parts, and what is not one."""
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path))

    def write(folder, **manifest):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "MANIFEST.json").write_text(json.dumps(manifest))
        (tmp_path / folder / "shard").write_bytes(bytes(1000))

    write("digits-1.0.0-5a", version="1.0.0", counts={"train": 5, "test": 2})
    write("clips-77", version=2, title="my clips", source="/data/clips")
    write("clips-77/part-a", counts={"clips": 3})
    write("clips-77/part-b", counts={"clips": 4})
    write("av_mnist/ab/images", counts={"train": 8})
    write("av_mnist/ab/sounds", counts={"speech": 9})
    write("imported/mosi/npz-12", version=-1, file="own.npz", layout="npz")
    write(".digits-2.building-7")
    (tmp_path / "xla").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "MANIFEST.json").write_text("[" * 9000)
    return tmp_path


def test_every_folder_with_a_manifest_is_listed_once(root):
    today = time.strftime("%Y-%m-%d")
    found = {store.name: store for store in list_stores()}
    about = {name: store.description for name, store in found.items()}
    assert about == {
        "av_mnist/ab": f"AV-MNIST, 8 examples, {today}",
        "clips-77": f"my clips, 7 examples, from /data/clips, {today}",
        "digits-1.0.0-5a": f"digits (embedded), 7 examples, {today}",
        "mosi/npz-12": f"mosi features (npz), from own.npz, {today}, of another "
        "version: import it again",
        "odd": f"odd, manifest not readable, {today}",
    }
    assert found["clips-77"].bytes > 3000 and found["av_mnist/ab"].bytes > 2000


def test_a_store_of_parts_is_removed_as_a_whole(root):
    remove_store(find_store("clips-77"))
    assert not (root / "clips-77").exists() and (root / "digits-1.0.0-5a").exists()
    for name in ("part-a", "..", "", "xla", ".digits-2.building-7"):
        with pytest.raises(DataError, match="D75"):
            find_store(name)
