"""What orbax leaves behind is not printed; what others leave behind is."""

import asyncio
import gc
import subprocess
import sys
import warnings

import pytest
from etils import epath
from orbax.checkpoint._src.metadata import array_metadata_store

from mmfusion_jax.training.checkpoint.orbax_logging import silence_orbax

pytestmark = pytest.mark.versions


async def _of_the_user():
    pass


def _abandoned_by_orbax():
    store = array_metadata_store.Store.__new__(array_metadata_store.Store)
    return store._get_array_metadatas(epath.Path("nowhere"))


def _warnings_of(make) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence_orbax()
        make()
        gc.collect()
    return [str(entry.message) for entry in caught]


@pytest.mark.parametrize(
    ("make", "count"), [(_abandoned_by_orbax, 0), (_of_the_user, 1)]
)
def test_tasks_that_never_began(make, count):
    assert len(_warnings_of(make)) == count


FAILED_WRITE = (
    'RESOURCE_EXHAUSTED: Error writing "key/0" in OCDBT database at local file '
    '"/runs/checkpoints/3.orbax-checkpoint-tmp/": No space left on device'
)
FAILED_READ = (
    'NOT_FOUND: Error opening "zarr" driver: Metadata at local file "/runs/3/.zarray" '
    "does not exist [source locations='tensorstore/driver/kvs_backed_chunk_driver.cc']"
)


@pytest.mark.parametrize(
    ("text", "count"), [(FAILED_WRITE, 0), (FAILED_READ, 0), ("of the user", 1)]
)
def test_futures_that_nobody_awaits(text, count, caplog):
    silence_orbax()
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_exception(ValueError(text))
    del future
    gc.collect()
    loop.close()
    assert len([entry for entry in caplog.records if entry.name == "asyncio"]) == count


@pytest.mark.ci
def test_an_import_says_nothing():
    command = [
        sys.executable,
        "-c",
        "import mmfusion_jax.runner.experiment, mmfusion_jax.bench",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
