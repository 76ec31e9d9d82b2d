"""One run: one model on one fold with one seed, from nothing or from where it stood."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmfusion_jax import build
from mmfusion_jax.analysis.cost import count_parameters
from mmfusion_jax.build import Config
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.models.warm_start import graft
from mmfusion_jax.provenance import write_json
from mmfusion_jax.train.checkpoints import Checkpoints
from mmfusion_jax.train.interrupt import Interrupt
from mmfusion_jax.train.journal import Journal
from mmfusion_jax.train.loop import Evaluation, Loop, Progress
from mmfusion_jax.train.state import TrainState, create_state
from mmfusion_jax.train.step import make_eval_step, make_train_step
from mmfusion_jax.types import Batch, PyTree


@dataclasses.dataclass(frozen=True)
class Donor:
    """A trained model whose encoders another one starts from."""

    params: PyTree
    stats: PyTree


class Run:
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
        self._blank = reader.blank()

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        parts = self.parts
        step = make_train_step(
            parts.model, parts.objective, parts.tx, parts.executor.axis,
            parts.accumulate,
        )  # fmt: skip
        return parts.executor.compile(step)

    @functools.cached_property
    def eval_step(self) -> Callable[[PyTree, Batch], PyTree]:
        parts = self.parts
        step = make_eval_step(parts.model, parts.objective, parts.task.scores())
        return parts.executor.compile_eval(step)

    def init(self, seed: int) -> Callable[[], TrainState]:
        """A function that creates the state of `seed`."""
        return lambda: create_state(
            self.parts.model, self.parts.tx, self._blank, jax.random.key(seed)
        )

    def train(
        self,
        data: Dataset,
        seed: int,
        folder: Path,
        title: str,
        interrupt: Interrupt,
        donors: Callable[[], Sequence[Donor]] = tuple,
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
        init = self.init(seed)
        first = jax.process_index() == 0
        with Checkpoints(folder / "checkpoints", say=say) as checkpoints:
            state, progress = self._restore(checkpoints, init)
            if state is None:
                state = self._start(init, donors())
            journal = Journal(folder if first else None, title, int(state.step))
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
                if int(state.step):
                    journal.say(f"{title}: going on from step {int(state.step)}")
                loop.run()
            checkpoints.wait()
            chosen, last = self._chosen(checkpoints, loop)
            result = self._result(loop, chosen, last, reader)
        if first:
            write_json(folder / "run.json", result)
        return result

    def evaluate(
        self, variables: PyTree, reader: Pipeline, splits: Sequence[str] = ()
    ) -> dict[str, Evaluation]:
        """Split -> scores, "loss", and the "confusion" they come from."""
        results = {}
        for split in splits or ("valid", "test"):
            if split not in reader.dataset.sources:
                continue
            sums = None
            for batch in reader.evaluate(split):
                batch = self.parts.executor.put(batch, train=False)
                part = self.eval_step(variables, batch)
                sums = part if sums is None else jax.tree.map(np.add, sums, part)
            results[split] = self._scores(jax.device_get(sums))
        return results

    def best(self, folder: Path) -> TrainState:
        """The chosen state of a run that was trained in `folder`, opened for reading.

        Raises:
            CheckpointError: if there is none.
        """
        abstract = self.parts.executor.abstract(self.init(0))
        path = folder / "checkpoints"
        found = None
        if path.is_dir():
            with Checkpoints(path, say=say, read_only=True) as saved:
                scored = saved.best_step is not None
                restore = saved.restore_best if scored else saved.restore_latest
                found = restore(abstract)
        if found is None:
            raise CheckpointError(
                "K01",
                f"{path} holds no checkpoint.",
                "train first: the same command with --mode=train",
            )
        return found[0]

    def _start(self, init: Callable[[], TrainState], donors: Sequence[Donor]):
        """A fresh state, with the encoders, and heads if it has them, of the donors."""
        state = self.parts.executor.create(init)
        params, stats = state.params, state.stats
        for donor in donors:
            for prefix in ("encoders_", "head_"):
                if any(name.startswith(prefix) for name in params):
                    params, stats = graft(
                        params, stats, donor.params, donor.stats, prefix
                    )
        copies = self.parts.executor.copy((params, stats))
        return state.replace(params=copies[0], stats=copies[1])

    def _restore(self, checkpoints: Checkpoints, init: Callable[[], TrainState]):
        """The newest intact state and what the host knew, or None and nothing."""
        found = checkpoints.restore_latest(self.parts.executor.abstract(init))
        if found is None:
            return None, Progress()
        state, meta = found
        return state, Progress(**meta["progress"])

    def _batches(self, reader: Pipeline, start: int, stop: int) -> Iterator[Batch]:
        put = functools.partial(self.parts.executor.put, train=True)
        return map(put, reader.train(start, stop))

    def _check(self, data: Dataset) -> None:
        """Labels are checked once, on the host, before anything can train on them."""
        for split in data.sources:
            labels = data.label(split, self.parts.task.label)
            self.parts.task.check(labels, split)

    def _baseline(self, data: Dataset) -> dict[str, Any]:
        """What always giving the commonest training label scores on the test split."""
        label = self.parts.task.label
        return self.parts.task.baseline(
            data.label("train", label), data.label("test", label)
        )

    def _scores(self, sums: Mapping[str, Any]) -> Evaluation:
        scores: Evaluation = dict(self.parts.task.scores().scores(sums["scores"]))
        scores["loss"] = float(sums["loss"]) / max(float(sums["weight"]), 1.0)
        scores["confusion"] = np.asarray(sums["scores"]["confusion"]).tolist()
        return scores

    def _chosen(
        self, checkpoints: Checkpoints, loop: Loop
    ) -> tuple[TrainState, TrainState]:
        """The state that the choosing split chose, and the last one."""
        if checkpoints.best_step is None:
            return loop.state, loop.state
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            loop.state,
        )
        return checkpoints.restore_best(abstract)[0], loop.state

    def _result(
        self, loop: Loop, chosen: TrainState, last: TrainState, reader: Pipeline
    ) -> dict[str, Any]:
        """The entry of this run in `result.json`."""
        scores = self.evaluate(chosen.variables, reader)
        at_end = self.evaluate(last.variables, reader, ("test",))
        confusion = {split: value.pop("confusion") for split, value in scores.items()}
        at_end["test"].pop("confusion")
        step = int(chosen.step)
        return {
            "model": self.config.model.name,
            "baseline": self._baseline(reader.dataset),
            "parameters": count_parameters(chosen.params),
            "step": step,
            "epoch": step / self.plan.steps_per_epoch,
            "steps": int(last.step),
            "ended": "early" if loop.stopped_early else "finished",
            "valid": scores.get("valid"),
            "test": scores["test"],
            "last": at_end["test"],
            "flattering": loop.progress.flattering,
            "confusion": confusion["test"],
            "bad_steps": int(last.bad_steps["total"]),
            "times": loop.clock.summary(),
        }


def say(line: str) -> None:
    """A message about checkpoints, beside the bar."""
    Journal(None, "").say(line)
