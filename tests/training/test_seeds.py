"""Several seeds in one step: each as alone, on one device and on two."""

import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from groups import in_ci

from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import MSE
from mmfusion_jax.results.model_result import Evaluation
from mmfusion_jax.training.metrics_log import MetricsLogger
from mmfusion_jax.training.optimizer import scale_by_lr_multiplier
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.plan import TrainPlan
from mmfusion_jax.training.seed_logs import describe_seeds
from mmfusion_jax.training.seeds import SeedGroup, SeedLoop
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import TrainState, create_state
from mmfusion_jax.training.step import make_train_step
from mmfusion_jax.types import Batch, Outputs

SEEDS, STEPS = 3, 3


class Small(nn.Module):
    """A convolution, its norm, dropout and a head."""

    axis: str | None = None

    @nn.compact
    def __call__(self, batch, *, train):
        x, mask = batch.inputs["audio"], batch.valid_mask("audio")
        x = nn.Conv(4, (3,), use_bias=False)(x)
        x = nn.relu(BatchNorm(self.axis)(x, mask, train=train))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean(axis=1))
        return Outputs(nn.Dense(1)(x)[:, 0])


def batch(seed: int, step: int) -> Batch:
    rng = np.random.default_rng([seed, step])
    return Batch(
        {"audio": rng.normal(size=(8, 5, 2)).astype(np.float32)},
        {"audio": np.ones((8, 5), bool)},
        {"label": rng.normal(size=8).astype(np.float32)},
        np.ones(8, np.float32),
    )


@pytest.mark.parametrize(
    ("parallel", "devices"),
    in_ci(
        [("jit", 1), ("jit", 2), ("pmap", 2), ("shard_map", 2)],
        ("jit", 2),
        several=True,
    ),
)
def test_a_step_of_several_seeds_is_the_step_of_each(parallel, devices):
    executor = Executor(parallel, devices)
    axis = executor.axis
    # Adam would hide a scaled gradient.
    model, tx = Small(axis), optax.sgd(0.1, momentum=0.9)
    objective = Objective({"task": WeightedLoss(MSE("label"))})
    step = make_train_step(model, objective, tx, axis)
    alone, at_once = executor.compile(step), executor.compile(step, seeds=True)
    init = lambda seed: create_state(Small(), tx, batch(0, 0), jax.random.key(seed))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *map(init, range(SEEDS)))
    for number in range(STEPS):
        rows = [batch(seed, number) for seed in range(SEEDS)]
        together = jax.tree.map(lambda *x: np.stack(x), *rows)
        stacked, metrics = at_once(
            stacked, executor.put(together, train=True, seeds=True)
        )
    for seed in range(SEEDS):
        state = init(seed)
        for number in range(STEPS):
            state, want = alone(state, executor.put(batch(seed, number), train=True))
        got = jax.tree.map(lambda x, seed=seed: x[seed], (stacked, metrics))
        assert (jax.random.key_data(got[0].key) == jax.random.key_data(state.key)).all()
        close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)
        plain = lambda state: (state.step, state.params, state.stats, state.opt_state)
        jax.tree.map(close, plain(got[0]), plain(state))
        close(got[1]["loss"], want["loss"])


class Disk:
    """A saver that keeps what it was given."""

    def __init__(self):
        self.saved = {}

    def save(self, step, state, meta, score=None, *, wait=False) -> bool:
        self.saved[step] = float(state.params["x"])
        return True


def group(plan: TrainPlan, scores, *, bad=(), signal=None, start=(0, 0)):
    """Seeds whose steps add their batch to a parameter; `bad` ones are not finite."""

    def first(step: int) -> TrainState:
        return TrainState(
            step=jnp.asarray(step, jnp.int32),
            params={"x": jnp.zeros(())},
            stats={},
            opt_state=optax.chain(scale_by_lr_multiplier()).init({}),
            key=jax.random.key(0),
            skipped_steps={"consecutive": jnp.zeros((), jnp.int32)},
        )

    lanes = len(scores)
    is_bad = jnp.array([lane in bad for lane in range(lanes)], jnp.int32)

    def step(states, batches):
        skipped = (states.skipped_steps["consecutive"] + 1) * is_bad
        x = states.params["x"] + batches.weight[:, 0] * (1 - is_bad)
        states = states.replace(
            step=states.step + 1,
            params={"x": x},
            skipped_steps={"consecutive": skipped},
        )
        metrics = {"loss": x, "nonfinite/consecutive_steps": skipped}
        return states, metrics | {"nonfinite/loss/task": is_bad > 0}

    shutdown = GracefulShutdown()
    shutdown.signal = signal
    numbered = lambda start, stop: (
        Batch({}, {}, {}, np.full(2, 10.0**n, np.float32)) for n in range(start, stop)
    )
    loops = [
        SeedLoop(
            plan=plan,
            step=step,
            batches=numbered,
            evaluate=lambda state: {},
            state=first(begin),
            saver=Disk(),
            logger=MetricsLogger(None, "loop", out=io.StringIO()),
            shutdown=shutdown,
        )
        for begin in start
    ]
    turns = iter(zip(*scores, strict=True))
    evaluate = lambda variables: [
        {"valid": Evaluation({"accuracy": score, "loss": 0.0})} for score in next(turns)
    ]
    return SeedGroup(loops, step, evaluate, Executor("jit", 1), shutdown)


def ends(made: SeedGroup) -> list[tuple[int, float]]:
    return [(int(x.state.step), float(x.state.params["x"])) for x in made.loops]


def test_a_seed_that_stops_early_keeps_its_state():
    plan = TrainPlan(steps=4, steps_per_epoch=1, patience=1)
    made = group(plan, [[0.5, 0.4, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]])
    made.run()
    assert ends(made) == [(2, 11.0), (4, 1111.0)]
    assert [loop.stopped_early for loop in made.loops] == [True, False]
    assert [loop.progress.best_step for loop in made.loops] == [1, 4]
    disks = [getattr(loop.saver, "saved") for loop in made.loops]  # noqa: B009
    assert disks == [{1: 1.0, 2: 11.0}, {1: 1.0, 2: 11.0, 3: 111.0, 4: 1111.0}]


def test_a_learning_rate_is_reduced_for_its_seed_alone():
    plan = TrainPlan(steps=3, steps_per_epoch=1, lr_patience=1, lr_factor=0.5)
    made = group(plan, [[0.5, 0.4, 0.3], [0.1, 0.2, 0.3]])
    made.run()
    rates = [optax.tree.get(x.state.opt_state, "step_size") for x in made.loops]
    assert list(map(float, rates)) == [0.5, 1.0]
    assert ends(made) == [(3, 111.0), (3, 111.0)]


def test_seeds_that_resume_from_different_steps_read_their_own_batches():
    made = group(TrainPlan(4, 2), [[0.5] * 4, [0.1] * 4], start=(1, 3))
    made.run()
    assert ends(made) == [(4, 1110.0), (4, 1000.0)]


def test_a_seed_that_is_not_finite_ends_alone():
    plan = TrainPlan(steps=6, steps_per_epoch=6, max_nonfinite_steps=2)
    made = group(plan, [[0.5], [0.1]], bad=(1,))
    made.run()
    good, bad = made.loops
    assert good.error is None and ends(made)[0] == (6, 111111.0)
    assert "N01" in str(bad.error) and bad.done < 6 and ends(made)[1][1] == 0.0


def test_saves_do_not_delay_the_end_of_a_seed_that_is_not_finite():
    plan = TrainPlan(9, 9, log_every=9, save_every=1, max_nonfinite_steps=2)
    made = group(plan, [[0.5], [0.1]], bad=(1,))
    made.run()
    bad = made.loops[1]
    assert "N01" in str(bad.error) and bad.done <= 4


def test_a_seed_that_was_not_finite_does_not_begin_again():
    plan = TrainPlan(steps=6, steps_per_epoch=6, max_nonfinite_steps=2)
    made = group(plan, [[0.5], [0.1]], start=(0, 3))
    skipped = {"consecutive": jnp.asarray(2, jnp.int32)}
    made.loops[1].state = made.loops[1].state.replace(skipped_steps=skipped)
    made.run()
    assert made.loops[0].error is None and ends(made)[0] == (6, 111111.0)
    assert "N01" in str(made.loops[1].error) and ends(made)[1] == (3, 0.0)


def test_a_signal_saves_every_seed():
    made = group(TrainPlan(9, 9), [[0.5], [0.1]], signal=15, start=(0, 2))
    with pytest.raises(Exception, match="step"):
        made.run()
    saved = [getattr(loop.saver, "saved") for loop in made.loops]  # noqa: B009
    assert saved == [{1: 1.0}, {3: 100.0}]


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([3], "seed 3"), ([4, 2, 3], "seeds 2-4"), ([0, 2, 5], "seeds 0, 2, 5")],
)
def test_seeds_are_named_in_short(seeds, text):
    assert describe_seeds(seeds) == text


@pytest.mark.versions
@pytest.mark.parametrize("version", [None, (0, 7, 2)])
def test_seeds_train_convolutions_on_a_mesh(version, monkeypatch):
    """Which JAX 0.7.2, the one of Colab, cannot vmap."""
    if version:
        monkeypatch.setattr(jax, "__version_info__", version)
    rng = np.random.default_rng(0)
    kernel, signal = rng.normal(size=(3, 5, 4, 3)), rng.normal(size=(3, 2, 4, 8))

    def loss(w, x):
        y = jax.lax.conv_general_dilated(x, w, (1,), "SAME")
        return jnp.sum(jnp.square(y))

    def step(w, x):
        value, gradient = jax.value_and_grad(loss)(w, x)
        return w - 0.01 * gradient, value

    executor = Executor("jit")
    batch = executor.put(np.float32(signal), train=True, seeds=True)
    weights, losses = executor.compile(step, seeds=True)(
        executor.copy(np.float32(kernel)), batch
    )
    for i in range(3):
        one, value = step(np.float32(kernel[i]), np.float32(signal[i]))
        np.testing.assert_allclose(weights[i], one, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses[i], value, rtol=1e-4)
