"""One run: one model on one fold with one seed, from nothing or from where it stood."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmfusion_jax.analysis.cost import count_parameters
from mmfusion_jax.analysis.shares import mean_modality_weights
from mmfusion_jax.config import build
from mmfusion_jax.config.instantiate import Config
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.models.transfer import copy_submodules
from mmfusion_jax.runner.provenance import write_json
from mmfusion_jax.tasks import compute_scores, constant_baseline_scores, rows_are_finite
from mmfusion_jax.train.checkpoint.manager import CheckpointManager
from mmfusion_jax.train.evaluation import collect
from mmfusion_jax.train.loop import Evaluation, Loop
from mmfusion_jax.train.metrics_log import MetricsLogger
from mmfusion_jax.train.plan import SelectionState
from mmfusion_jax.train.signals import GracefulShutdown
from mmfusion_jax.train.state import TrainState, create_state
from mmfusion_jax.train.step import make_eval_step
from mmfusion_jax.types import Batch, PyTree
from mmfusion_jax.weights.convert import load


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A trained model whose encoders another one starts from."""

    params: PyTree
    stats: PyTree


class Trainer:
    """A config brought to life on one data set.

    Compiled steps are kept, so that one object serves every fold and seed whose data
    have the same shapes.

    Args:
        config: resolved.
        data: any fold of the data set; later folds come with each call.
    """

    def __init__(self, config: Config, data: Dataset):
        self.config = config
        reader = build.pipeline(config, data, config.seed)
        self.plan = build.plan(config, reader.steps_per_epoch)
        self.parts = build.parts(config, data, self.plan.steps)
        self._blank = reader.dummy_batch()

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        parts = self.parts
        return parts.executor.compile(parts.step(parts.executor.axis))

    @functools.cached_property
    def eval_step(self) -> Callable[[PyTree, Batch], PyTree]:
        parts = self.parts
        step = make_eval_step(
            parts.model, parts.objective, parts.task.scores(), parts.modalities
        )
        return parts.executor.compile_eval(step)

    def init(self, seed: int) -> TrainState:
        """The first state of `seed`; its program is the same for every seed."""
        return self._compiled_init(_key_data(seed))

    @functools.cached_property
    def _compiled_init(self) -> Callable[[np.ndarray], TrainState]:
        return self.parts.executor.compile_init(self._init)

    @functools.cached_property
    def _abstract(self) -> TrainState:
        """Shapes, types and shardings of a state."""
        init = functools.partial(self._init, _key_data(0))
        return self.parts.executor.abstract(init)

    def _init(self, key: Any) -> TrainState:
        """The state that the data of a key creates."""
        key = jax.random.wrap_key_data(key)
        return create_state(self.parts.model, self.parts.tx, self._blank, key)

    def train(
        self,
        data: Dataset,
        seed: int,
        folder: Path,
        title: str,
        interrupt: GracefulShutdown,
        donors: Callable[[], Sequence[PretrainedModel]] = tuple,
    ) -> dict[str, Any]:
        """Trains, or goes on, or finds that everything is done.

        Args:
            data: the fold.
            seed: of the weights, the order and the augmentation.
            folder: of this run alone.
            title: shown while it runs.
            interrupt: the signals of the user and the system.
            donors: gives trained models to take encoders from; only a fresh run asks.

        Returns:
            The entry of this run in `result.json`.
        """
        if (folder / "run.json").exists():
            return json.loads((folder / "run.json").read_text(encoding="utf-8"))
        reader = build.pipeline(self.config, data, seed)
        self._check(data)
        first = jax.process_index() == 0
        with CheckpointManager(folder / "checkpoints", say=log) as checkpoints:
            state, progress = self._restore(checkpoints)
            if state is None:
                state = self._start(seed, donors())
            journal = MetricsLogger(folder if first else None, title, int(state.step))
            loop = Loop(
                plan=self.plan,
                step=self.train_step,
                batches=functools.partial(self._batches, reader),
                evaluate=lambda state: self.evaluate(state.variables, reader),
                state=state,
                saver=checkpoints,
                journal=journal,
                interrupt=interrupt,
                progress=progress,
            )
            with journal:
                journal.log(f"{title}: {_begins(int(state.step), self.plan.steps)}")
                loop.run()
            checkpoints.wait()
            result = self._result(loop, self._chosen(checkpoints, loop), reader)
        if first:
            write_json(folder / "run.json", result)
        return result

    def evaluate(
        self, variables: PyTree, reader: Pipeline, splits: Sequence[str] = ()
    ) -> dict[str, Evaluation]:
        """Split -> scores and "loss"; splits that the data set lacks are left out."""
        results = {}
        for split in splits or ("valid", "test"):
            if split in reader.dataset.sources:
                collected, loss = self.collect(variables, reader, split)
                results[split] = self._scores(collected, loss)
        return results

    def collect(
        self, variables: PyTree, reader: Pipeline, split: str
    ) -> tuple[dict[str, np.ndarray], float]:
        """What the task's scores need of every example of `split`, and the loss."""
        put = functools.partial(self.parts.executor.put, train=False)
        task = self.parts.task
        prior = task.prior(reader.dataset.label("train", task.label))
        return collect(
            self.eval_step,
            {**variables, "prior": prior},
            map(put, reader.evaluate(split)),
        )

    def best_state(self, folder: Path) -> TrainState:
        """The chosen state of a run that was trained in `folder`, opened for reading.

        Raises:
            CheckpointError: if there is none.
        """
        path = folder / "checkpoints"
        found = None
        if path.is_dir():
            with CheckpointManager(path, say=log, read_only=True) as saved:
                scored = saved.best_step is not None
                restore = saved.restore_best if scored else saved.restore_latest
                found = restore(self._abstract)
        if found is None:
            raise CheckpointError(
                "K01",
                f"{path} holds no checkpoint.",
                "train first: the same command with --mode=train",
            )
        return found[0]

    def _start(self, seed: int, donors: Sequence[PretrainedModel]):
        """A fresh state, with the encoders, and heads if it has them, of the donors."""
        state = self.init(seed)
        params, stats = self._pretrained(state.params, state.stats)
        for donor in donors:
            for prefix in ("encoders_", "head_"):
                if any(name.startswith(prefix) for name in params):
                    params, stats = copy_submodules(
                        params, stats, donor.params, donor.stats, prefix
                    )
        copies = self.parts.executor.copy((params, stats))
        return state.replace(params=copies[0], stats=copies[1])

    def _pretrained(self, params: PyTree, stats: PyTree) -> tuple[PyTree, PyTree]:
        """The first weights, with those of encoders for which a file is given."""
        for line in build.random_encoders(self.config):
            log(line)
        trees = {"params": dict(params), "batch_stats": dict(stats)}
        for modality, (table, path) in build.weights(self.config).items():
            name = f"encoders_{modality}"
            own = {kind: tree[name] for kind, tree in trees.items() if name in tree}
            loaded = load(table, path, own)
            for kind, filled in loaded.variables.items():
                trees[kind][name] = filled
            left = f"; {len(loaded.unused)} of its names unused" * bool(loaded.unused)
            log(f"{modality}: weights of {path}{left}")
        return trees["params"], trees["batch_stats"]

    def _restore(self, checkpoints: CheckpointManager):
        """The newest intact state and what the host knew, or None and nothing."""
        found = checkpoints.restore_latest(self._abstract)
        if found is None:
            return None, SelectionState()
        state, meta = found
        return state, SelectionState(**meta["progress"])

    def _batches(self, reader: Pipeline, start: int, stop: int) -> Iterator[Batch]:
        put = functools.partial(self.parts.executor.put, train=True)
        return map(put, reader.train(start, stop))

    def _check(self, data: Dataset) -> None:
        """Labels are checked once, on the host, before anything can train on them."""
        for split in data.sources:
            labels = data.label(split, self.parts.task.label)
            self.parts.task.check(labels, split)

    def _baseline(self, data: Dataset) -> dict[str, Any]:
        """What the best answer that looks at no input scores on the test split."""
        task = self.parts.task
        train, test = (data.label(split, task.label) for split in ("train", "test"))
        says, scores = constant_baseline_scores(task, train, test)
        return {"says": says, "scores": scores}

    def _scores(self, collected: Mapping[str, np.ndarray], loss: float) -> Evaluation:
        return {**compute_scores(self.parts.task, collected), "loss": loss}

    def _chosen(self, checkpoints: CheckpointManager, loop: Loop) -> TrainState:
        """The state that the choosing split chose; the last one if none did."""
        if checkpoints.best_step is None:
            return loop.state
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            loop.state,
        )
        return checkpoints.restore_best(abstract)[0]

    def _result(self, loop: Loop, chosen: TrainState, reader: Pipeline):
        """The entry of this run in `result.json`."""
        last = loop.state
        scores = self.evaluate(chosen.variables, reader, ("valid",))
        collected, loss = self.collect(chosen.variables, reader, "test")
        step = int(chosen.step)
        good = rows_are_finite(collected)
        finite = {name: x[good] for name, x in collected.items()}
        return {
            "model": self.config.model.name,
            "baseline": self._baseline(reader.dataset),
            "parameters": count_parameters(chosen.params),
            "step": step,
            "epoch": step / self.plan.steps_per_epoch,
            "steps": int(last.step),
            "ended": "early" if loop.stopped_early else "finished",
            "valid": scores.get("valid"),
            "test": self._scores(collected, loss),
            "last": self.evaluate(last.variables, reader, ("test",))["test"],
            "flattering": loop.progress.best_test,
            "picture": self.parts.task.plot_data(finite),
            "shares": mean_modality_weights(collected),
            "bad_steps": int(last.skipped_steps["total"]),
            "times": loop.clock.summary(),
        }


def _begins(step: int, steps: int) -> str:
    """What is said when a run begins, for the program of a step can take minutes."""
    if step >= steps:
        return f"all {steps} steps are done"
    if step:
        return f"going on from step {step}"
    return f"{steps} steps; the first one waits for its program to be compiled"


def _key_data(seed: int) -> np.ndarray:
    """The key of a seed on the host, as every process may hand it to a program."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def log(line: str) -> None:
    """A message about checkpoints, beside the bar."""
    MetricsLogger(None, "").log(line)
