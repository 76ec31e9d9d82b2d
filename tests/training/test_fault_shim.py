"""A save is stopped, or fails, before any of its file-system calls; nothing is lost."""

import shutil
import sys
from pathlib import Path

import pytest
from fork_server import ForkServer
from save_trials import SCORES, fingerprint, leftovers, meta_of, state_of, unequal_steps

from mmfusion_jax.training.checkpoint.manager import CheckpointManager

ENOSPC, EIO = 28, 5
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None,
    reason="the fault shim needs Linux and gcc",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory, shim, cache_dir):
    folder = tmp_path_factory.mktemp("server")
    with ForkServer(
        "save_trials", folder, cache_dir / "children", preload=shim
    ) as server:
        yield server


@pytest.fixture(scope="module")
def base(tmp_path_factory, server) -> Path:
    """Steps 1 and 2, saved without faults."""
    folder = tmp_path_factory.mktemp("base") / "checkpoints"
    assert server.run("make_base", str(folder)).code == 0
    return folder


@pytest.fixture
def trial(tmp_path, base, server, shim):
    """Saves step 3 over a copy of the base, with a fault at one call."""

    def run(at: int, error: int = 0, sticky: bool = False):
        folder = tmp_path / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        arguments = [str(folder), str(shim), at, error, sticky]
        return folder, server.run("save_with_fault", *arguments)

    return run


@pytest.fixture
def calls(trial) -> int:
    """How many calls an untroubled save makes; a few more or less each time."""
    _, outcome = trial(at=0)
    assert outcome.code == 0, outcome.log
    assert outcome.value["saved"] and outcome.value["newest"] == 3
    assert outcome.value["calls"] > 50, "the shim counts nothing: no preload?"
    return outcome.value["calls"]


def check_after_kill(folder: Path) -> None:
    """All steps are readable, as they were saved, and the next save leaves no trace."""
    lines: list[str] = []
    with CheckpointManager(folder, log=lines.append) as checkpoints:
        assert unequal_steps(str(folder)) == []
        assert checkpoints.latest_step in (2, 3)
        assert checkpoints.best_step == 2
        assert checkpoints.save(4, state_of(4), meta_of(4), SCORES[4])
        state, meta = checkpoints.restore_latest(state_of(0))
        assert fingerprint(state) == fingerprint(state_of(4)) and meta == meta_of(4)
    assert lines == []
    assert leftovers(str(folder)) == []


def check_after_fault(outcome) -> None:
    """A fault is reported in one line, or did no harm; the run goes on."""
    assert outcome.code == 0, outcome.log
    assert outcome.log == "", "orbax talks on the screen"
    value = outcome.value
    assert value["wrong"] == []
    assert len(value["reported"]) <= 1
    if value["saved"]:
        assert value["newest"] == 3
    else:
        assert value["newest"] == 2
        assert "step 3 could not be saved" in value["reported"][0]
    assert value["later"]


def sweep_kills(trial, calls: int, stride: int) -> None:
    killed = 0
    for at in range(1, calls + 1, stride):
        folder, outcome = trial(at)
        assert outcome.code in (-9, 0), outcome.log
        killed += outcome.code == -9
        if outcome.code == -9:
            check_after_kill(folder)
    assert killed > 0.8 * len(range(1, calls + 1, stride))


def sweep_faults(trial, calls: int, stride: int, error: int, sticky: bool) -> None:
    lost = 0
    for at in range(1, calls + 1, stride):
        folder, outcome = trial(at, error, sticky)
        check_after_fault(outcome)
        assert leftovers(str(folder)) == [], at
        steps = {int(path.name) for path in folder.iterdir()}
        assert steps == ({2, 3, 4} if outcome.value["saved"] else {2, 4}), at
        lost += not outcome.value["saved"]
    assert lost > 0, "no fault ever hit a save: the shim does nothing"


@pytest.mark.ci
def test_survives_a_kill_before_every_fifth_call(trial, calls):
    sweep_kills(trial, calls, stride=5)


def test_says_that_the_disk_is_full_and_goes_on(trial, calls):
    sweep_faults(trial, calls, 10, ENOSPC, sticky=True)


@pytest.mark.ci
def test_survives_one_failing_call(trial, calls):
    sweep_faults(trial, calls, 10, EIO, sticky=False)


@pytest.mark.slow
def test_survives_a_kill_before_every_call(trial, calls):
    sweep_kills(trial, calls, stride=1)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "sticky"), [(ENOSPC, True), (EIO, False)])
def test_survives_a_fault_at_every_call(trial, calls, error, sticky):
    sweep_faults(trial, calls, 1, error, sticky)
