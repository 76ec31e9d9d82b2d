"""A run that was killed, at any moment, ends as one that was not, bit for bit."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fork_server import ForkServer, Outcome
from groups import in_ci
from save_trials import leftovers

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the fork server needs Linux"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp("server")
    with ForkServer("kill_test_helpers", folder, cache_dir / "children") as server:
        yield server


@pytest.fixture(scope="module")
def whole(tmp_path_factory, server) -> Outcome:
    """A run that nobody disturbed; the second of two, so that nothing compiles."""
    first, second = (
        server.run("train", str(tmp_path_factory.mktemp("whole") / "run"))
        for _ in range(2)
    )
    assert first.code == second.code == 0, first.log + second.log
    assert first.value == second.value
    assert first.value["best"] is not None
    return second


def moments(server: ForkServer, tmp_path: Path, whole: Outcome, seed: int):
    """Endless runs: a function that starts or resumes one, and its folder."""
    rng = np.random.default_rng(seed)
    for number in range(1000):
        folder = tmp_path / f"run_{number}"

        def resume(*signals: int, folder: Path = folder) -> Outcome:
            after = float(rng.uniform(0, whole.seconds))
            plan = [(after + 0.05 * n, number) for n, number in enumerate(signals)]
            return server.run("train", str(folder), signals=plan)

        yield folder, resume


def kill_often(runs: Iterator, whole: Outcome, kills: int) -> int:
    """Kills runs at most four times each; returns how many kills fell into a save."""
    killed = in_a_save = 0
    while killed < kills:
        folder, resume = next(runs)
        for _ in range(4):
            outcome = resume(signal.SIGKILL)
            if outcome.code == 0 or killed == kills:
                break
            assert outcome.code == -signal.SIGKILL, outcome.log
            killed += 1
            in_a_save += any((folder / "checkpoints").glob("*.orbax-checkpoint-tmp"))
        check_ends_as(whole, folder, resume())
    return in_a_save


def check_ends_as(whole: Outcome, folder: Path, outcome: Outcome) -> None:
    """Same weights, optimiser, keys, chosen step and written scalars.

    A signal makes the loop look at its numbers at once: that may add a line of scalars.
    """
    assert outcome.code == 0, outcome.log
    assert "damaged" not in outcome.log and "could not" not in outcome.log
    steps = {(line[0], line[1]) for line in whole.value["metrics"]}
    lines = [line for line in outcome.value["metrics"] if tuple(line[:2]) in steps]
    assert {**outcome.value, "metrics": lines} == whole.value
    assert leftovers(str(folder / "checkpoints")) == []


@pytest.mark.ci
def test_killed_20_times(server, tmp_path, whole):
    runs = moments(server, tmp_path, whole, seed=0)
    in_a_save = kill_often(runs, whole, kills=20)
    print(f"20 kills, {in_a_save} of them inside a save")
    assert in_a_save > 0, "no kill fell into a save: the test proves too little"


@pytest.mark.slow
def test_killed_300_times(server, tmp_path, whole):
    runs = moments(server, tmp_path, whole, seed=1)
    in_a_save = kill_often(runs, whole, kills=300)
    print(f"300 kills, {in_a_save} of them inside a save")
    assert in_a_save >= 30


def stop_once(runs: Iterator, whole: Outcome, number: int) -> bool:
    """Interrupts a run and goes on; False if the signal came too early or too late."""
    folder, resume = next(runs)
    outcome = resume(number)
    said = "saved step" in outcome.log and "rerun the same command" in outcome.log
    if outcome.code == 128 + number and said:
        assert "Traceback" not in outcome.log
        check_ends_as(whole, folder, resume())
        return True
    assert outcome.code in (0, -number, 128 + number), outcome.log
    return False


@pytest.mark.parametrize(
    "number", in_ci([signal.SIGTERM, signal.SIGINT], signal.SIGINT)
)
def test_a_signal_saves_and_says_how_to_go_on(server, tmp_path, whole, number):
    runs = moments(server, tmp_path, whole, seed=number)
    assert any(stop_once(runs, whole, number) for _ in range(8))


@pytest.mark.ci
def test_a_second_ctrl_c_ends_at_once(server, tmp_path, whole):
    runs = moments(server, tmp_path, whole, seed=5)
    for _ in range(8):
        folder, resume = next(runs)
        outcome = resume(signal.SIGINT, signal.SIGINT)
        at_once = "saved" not in outcome.log and "nterrupted" not in outcome.log
        if outcome.code == 130 and at_once:
            check_ends_as(whole, folder, resume())
            return
    pytest.fail("eight times, no second Ctrl-C came before the first was answered")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_25_moments(server, tmp_path, whole, number):
    runs = moments(server, tmp_path, whole, seed=10 + number)
    stopped = tried = 0
    while stopped < 25:
        stopped += stop_once(runs, whole, number)
        tried += 1
        assert tried < 100, "most signals come too early or too late"
