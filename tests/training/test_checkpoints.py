"""What is kept, what is best, and that a damaged step never passes for a whole one."""

import json
import math
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from fork_server import ForkServer
from orbax import checkpoint as ocp
from paths import TESTS
from save_trials import fingerprint, leftovers, make_base, meta_of, state_of

from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.training.checkpoint.integrity import array_specs, digests
from mmfusion_jax.training.checkpoint.manager import CheckpointManager

pytestmark = pytest.mark.versions


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path, lines):
    with CheckpointManager(tmp_path / "run", log=lines.append) as checkpoints:
        yield checkpoints


def save(checkpoints: CheckpointManager, scores: dict[int, float | None]) -> None:
    for step, score in scores.items():
        assert checkpoints.save(step, state_of(step), meta_of(step), score)


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def check_restored(found, step: int) -> None:
    state, meta = found
    assert fingerprint(state) == fingerprint(state_of(step))
    assert meta == meta_of(step)


def test_gives_back_what_was_saved(checkpoints, lines):
    assert checkpoints.latest_step is None
    assert checkpoints.restore_latest(state_of(0)) is None
    save(checkpoints, {5: None})
    check_restored(checkpoints.restore_latest(state_of(0)), 5)
    assert lines == []


@pytest.mark.parametrize(
    ("scores", "best", "kept"),
    [
        ({1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: 0.4}, 2, [2, 4, 5]),
        ({1: 0.5, 2: 0.9, 3: 0.9, 4: 0.9, 5: 0.1}, 2, [2, 4, 5]),  # the first of equals
        ({1: 0.0, 2: -1.0, 3: 0.0, 4: -2.0}, 1, [1, 3, 4]),
        ({1: math.nan, 2: -math.inf, 3: math.nan, 4: math.nan}, 2, [2, 3, 4]),
        ({1: math.nan, 2: math.nan, 3: math.nan, 4: math.nan}, 1, [1, 3, 4]),
        ({1: 0.2, 2: None, 3: None, 4: None, 5: None}, 1, [1, 4, 5]),
        ({1: None, 2: None, 3: None}, None, [2, 3]),
    ],
)
def test_keeps_the_newest_and_the_best(tmp_path, lines, scores, best, kept):
    with CheckpointManager(tmp_path, log=lines.append) as checkpoints:
        save(checkpoints, scores)
        assert checkpoints.best_step == best
        assert checkpoints.latest_step == max(scores)
        assert steps_in(tmp_path) == kept
    with CheckpointManager(tmp_path, log=lines.append) as again:
        assert again.best_step == best
        wanted = max(scores) if best is None else best
        check_restored(again.restore_best(state_of(0)), wanted)
    assert lines == []
    assert leftovers(str(tmp_path)) == []


def test_saving_a_step_again_changes_nothing(checkpoints):
    save(checkpoints, {1: 0.5, 2: 0.4})
    checkpoints.wait()
    before = (checkpoints.folder / "2" / "_CHECKPOINT_METADATA").read_bytes()
    save(checkpoints, {2: None})
    save(checkpoints, {2: 0.9})
    assert checkpoints.best_step == 1
    assert (checkpoints.folder / "2" / "_CHECKPOINT_METADATA").read_bytes() == before


def test_a_step_without_a_score_may_get_one(checkpoints, lines):
    save(checkpoints, {1: 0.5, 2: None})
    assert checkpoints.best_step == 1
    save(checkpoints, {2: 0.9})
    assert checkpoints.best_step == 2
    check_restored(checkpoints.restore_best(state_of(0)), 2)
    assert lines == []


def test_refuses_to_go_back(checkpoints):
    save(checkpoints, {3: None})
    with pytest.raises(ValueError, match="step 2 is older than step 3"):
        checkpoints.save(2, state_of(2), {})


def test_the_state_may_be_donated_at_once(checkpoints, lines):
    grow = jax.jit(lambda state: {"w": state["w"] + 1}, donate_argnums=0)
    state = jax.device_put({"w": np.zeros(1 << 20, np.float32)})
    for step in range(1, 6):
        state = grow(state)
        assert checkpoints.save(step, state, {})
        state = grow(state)  # writes into the memory of the state just saved
        found = checkpoints.restore_latest(state)
        assert found is not None and np.all(found[0]["w"] == 2 * step - 1)
    assert lines == []


def test_restores_to_the_sharding_asked_for(checkpoints):
    save(checkpoints, {1: None})
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state_of(0)
    )
    found = checkpoints.restore_latest(target)
    check_restored(found, 1)
    assert all(leaf.sharding == whole for leaf in jax.tree.leaves(found[0]))


def test_another_model_is_no_damage(checkpoints, lines):
    save(checkpoints, {1: None, 2: None})
    other = state_of(0)
    other["params"]["a"]["kernel"] = np.zeros((30, 10), np.float32)
    other["params"]["b"] = other["params"]["a"].pop("bias")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore_latest(other)
    message = str(caught.value)
    assert caught.value.code == "K02" and "--workdir" in message
    kernel = "params.a.kernel: float32 (30, 20) in the checkpoint, float32 (30, 10)"
    assert kernel in message
    assert "params.b: missing in the checkpoint, bfloat16 (20,) in the model" in message
    assert lines == [] and steps_in(checkpoints.folder) == [1, 2]


def test_another_type_is_another_model(checkpoints):
    save(checkpoints, {1: None})
    other = {**state_of(0), "step": np.float32(0)}
    with pytest.raises(CheckpointError, match="step: int32 .* float32"):
        checkpoints.restore_latest(other)


def corrupt(path: Path, place: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def largest_file(folder: Path) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def test_falls_back_to_the_newest_intact_step(checkpoints, lines):
    save(checkpoints, {1: None, 2: None})
    checkpoints.wait()
    corrupt(largest_file(checkpoints.folder / "2" / "state" / "ocdbt.process_0"), 900)
    check_restored(checkpoints.restore_latest(state_of(0)), 1)
    assert len(lines) == 1 and "moved to corrupted/2" in lines[0]
    assert (checkpoints.folder / "corrupted" / "2").is_dir()
    save(checkpoints, {2: None})
    check_restored(checkpoints.restore_latest(state_of(0)), 2)
    corrupt(checkpoints.folder / "2" / "meta" / "metadata")
    check_restored(checkpoints.restore_latest(state_of(0)), 1)
    assert (checkpoints.folder / "corrupted" / "2.2").is_dir()


def test_a_changed_score_does_not_choose_the_best_step(tmp_path, lines):
    with CheckpointManager(tmp_path, log=lines.append) as checkpoints:
        save(checkpoints, {1: 0.5, 2: 0.9, 3: 0.7})
    (tmp_path / "3" / "metrics" / "metrics").write_text('{"step": 3, "score": 0.97}')
    (tmp_path / "2" / "metrics" / "metrics").unlink()
    with CheckpointManager(tmp_path, log=lines.append) as checkpoints:
        assert steps_in(tmp_path) == []
        assert len(lines) == 2 and all("score differs" in line for line in lines)


def test_a_changed_meta_is_damage(tmp_path, lines):
    make_base(str(tmp_path))
    path = tmp_path / "2" / "meta" / "metadata"
    record = json.loads(path.read_text())
    record["meta"]["progress"]["best"] = 0.99
    path.write_text(json.dumps(record))
    with CheckpointManager(tmp_path, log=lines.append) as checkpoints:
        check_restored(checkpoints.restore_latest(state_of(0)), 1)
    assert len(lines) == 1


@pytest.mark.parametrize("read_only", [False, True])
def test_says_that_nothing_is_left(tmp_path, lines, read_only):
    make_base(str(tmp_path))
    for step in ("1", "2"):
        corrupt(tmp_path / step / "meta" / "metadata")
    for _ in range(2):  # the second time as well: it does not start from 0 unasked
        how = {"log": lines.append, "read_only": read_only}
        with (
            CheckpointManager(tmp_path, **how) as checkpoints,
            pytest.raises(CheckpointError, match="all checkpoints are corrupted"),
        ):
            checkpoints.restore_latest(state_of(0))
        with (
            CheckpointManager(tmp_path, **how) as checkpoints,
            pytest.raises(CheckpointError, match="all checkpoints are corrupted"),
        ):
            checkpoints.restore_best(state_of(0))


def test_says_that_there_is_nothing_yet(checkpoints):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoints.restore_best(state_of(0))


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def test_reading_changes_nothing(tmp_path, lines):
    make_base(str(tmp_path))
    corrupt(largest_file(tmp_path / "2" / "state" / "ocdbt.process_0"), 900)
    (tmp_path / "trash" / "1").mkdir(parents=True)
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    before = listing(tmp_path)
    with CheckpointManager(tmp_path, log=lines.append, read_only=True) as checkpoints:
        check_restored(checkpoints.restore_best(state_of(0)), 1)
        assert checkpoints.latest_step == 1
    assert listing(tmp_path) == before
    assert len(lines) == 1 and "skipped" in lines[0]
    missing = tmp_path / "missing"
    with CheckpointManager(missing, log=lines.append, read_only=True) as checkpoints:
        assert checkpoints.restore_latest(state_of(0)) is None
    assert not missing.exists()


def test_opening_deletes_what_is_left_over(tmp_path, lines):
    make_base(str(tmp_path))
    (tmp_path / "trash" / "1").mkdir(parents=True)
    (tmp_path / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with CheckpointManager(tmp_path, log=lines.append):
        assert leftovers(str(tmp_path)) == []
    assert lines == []


@pytest.mark.parametrize("required", [False, True])
def test_a_lost_disk_ends_the_run_only_where_required(
    tmp_path, lines, monkeypatch, required
):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    text = "step 2 could not be saved (No space left on device); on disk: step 1"
    with CheckpointManager(
        tmp_path, log=lines.append, required=required
    ) as checkpoints:
        save(checkpoints, {1: None})
        monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
        if required:
            with pytest.raises(CheckpointError, match=re.escape(text)):
                checkpoints.save(2, state_of(2), meta_of(2))
        else:
            assert not checkpoints.save(2, state_of(2), meta_of(2))
            assert lines == [f"checkpoint: {text}"]
        monkeypatch.undo()
        save(checkpoints, {3: None})
        check_restored(checkpoints.restore_latest(state_of(0)), 3)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError) as caught:
        CheckpointManager(tmp_path / "run", log=print)
    assert caught.value.code == "K04"


def test_names_what_cannot_be_stored(checkpoints):
    with pytest.raises(ValueError, match=r"two arrays are named 'a\.b'"):
        checkpoints.save(1, {"a.b": np.ones(2), "a": {"b": np.zeros(2)}}, {})
    with pytest.raises(ValueError, match=r"'empty' is empty, \(0, 3\)"):
        checkpoints.save(1, {"empty": np.ones((0, 3))}, {})


def test_digests_see_type_shape_and_bytes():
    base = np.arange(6, dtype=np.float32)
    changed = base.copy()
    changed[3] = np.nextafter(changed[3], 9, dtype=np.float32)
    variants = [base, base.reshape(2, 3), base.view(np.int32), changed]
    variants += [jax.random.key(0), jax.random.key(1), np.float32(0), np.array(True)]
    found = [digests({"x": x})["x"] for x in variants]
    assert len(set(found)) == len(variants)
    assert found[0] == digests({"x": jax.device_put(base)})["x"]
    assert array_specs({"x": jax.random.key(0)}) == {"x": "key<fry> ()"}


@pytest.fixture(scope="module")
def server(tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp("server")
    with ForkServer("save_trials", folder, cache_dir / "children") as server:
        yield server


def check_rot(server: ForkServer, tmp_path: Path, trials: int, seed: int) -> int:
    """Damages copies of two steps; returns how often it mattered."""
    base = tmp_path / "base"
    shutil.rmtree(base, ignore_errors=True)
    make_base(str(base))
    arguments = [str(base), str(tmp_path / "scratch"), seed, trials]
    outcome = server.run("rot", *arguments, limit=10.0 * trials)
    assert outcome.code == 0, outcome.log
    assert outcome.log == "", "orbax talks on the screen"
    for trial in outcome.value:
        assert trial["same"], trial
        assert trial["kept"] == (trial["step"] == 1), trial
        assert len(trial["lines"]) == (trial["step"] == 1), trial
    return sum(trial["step"] == 1 for trial in outcome.value)


@pytest.mark.ci
def test_no_bit_rot_is_silent(server, tmp_path):
    assert check_rot(server, tmp_path, trials=100, seed=0) > 20


@pytest.mark.slow
def test_no_bit_rot_is_silent_in_2000_trials(server, tmp_path):
    assert sum(check_rot(server, tmp_path, 100, seed) for seed in range(1, 21)) > 400


def test_a_full_disk_is_one_line(server, tmp_path):
    make_base(str(tmp_path))
    outcome = server.run("save_on_full_disk", str(tmp_path), 2000)
    assert outcome.code == 0 and outcome.log == ""
    assert not outcome.value["saved"] and outcome.value["newest"] == 2
    (line,) = outcome.value["lines"]
    assert "step 3 could not be saved (File too large" in line
    with CheckpointManager(tmp_path, log=print) as checkpoints:
        check_restored(checkpoints.restore_latest(state_of(0)), 2)


@pytest.mark.slow
def test_two_processes_save_and_fall_back_together(tmp_path, lines):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = TESTS / "subprocess_save.py"
    started = [
        subprocess.Popen(
            [sys.executable, script, str(port), str(rank), tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = []
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        told.append(json.loads(out.splitlines()[-1]))  # Gloo talks as well
    for one in told:
        assert one["chosen"] == [4, 2]
        assert one["found"] == [4, 3, 2, 4]
    assert [len(one["lines"]) for one in told] == [1, 0]
    assert "step 4 is corrupted" in told[0]["lines"][0]
    with CheckpointManager(tmp_path, log=lines.append) as checkpoints:
        target = {"w": np.zeros(500, np.float32), "b": np.zeros(3, np.float32)}
        state, meta = checkpoints.restore_latest(jax.device_put(target))
        assert meta == {"step": 4} and np.all(state["w"] == 4 * np.arange(500))
    assert lines == []
    assert leftovers(str(tmp_path)) == ["corrupted"]
