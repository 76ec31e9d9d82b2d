"""An export that is stopped, or has no space, at any call leaves no part of it."""

import shutil
import sys
from pathlib import Path

import pytest
from export_trials import FILES
from fork_server import ForkServer

ENOSPC = 28
pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("gcc") is None,
        reason="the fault shim needs Linux and gcc",
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory, shim, cache_dir):
    folder = tmp_path_factory.mktemp("server")
    with ForkServer(
        "export_trials", folder, cache_dir / "children", preload=shim
    ) as server:
        yield server


def content(folder: Path) -> dict[str, bytes] | None:
    """The files of the output; None if it does not exist."""
    out = folder / "out"
    if not out.exists():
        return None
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("error", [0, ENOSPC])
def test_the_folder_is_complete_or_does_not_exist(error, server, shim, tmp_path):
    def trial(at: int, name: str):
        folder = tmp_path / name
        folder.mkdir()
        return folder, server.run("write_with_fault", str(folder), str(shim), at, error)

    folder, outcome = trial(0, "all")
    calls = outcome.value["calls"]
    assert content(folder) == FILES and calls > 10, "the shim counts nothing"
    complete = 0
    for at in range(1, calls + 1):
        folder, outcome = trial(at, str(at))
        found = content(folder)
        assert found in (None, FILES), at
        complete += found is not None
        if error:
            assert outcome.code == 0, outcome.log
            assert outcome.value["code"] == ("E10" if at <= calls else ""), at
        else:
            assert outcome.code == -9
        # Another export to the same place is not disturbed by what is left.
        if found is None:
            server.run("write_with_fault", str(folder), str(shim), 0, 0)
            assert content(folder) == FILES
    assert complete < calls / 2
