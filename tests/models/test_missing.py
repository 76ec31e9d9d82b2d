"""Any subset of modalities, example by example, for every model of the library."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import model_cases
import numpy as np
import optax
import pytest
import small_configs
from groups import in_ci
from loaded_tables import MODELS
from masking_contract import POISON, poisoned
from ml_collections import ConfigDict

from mmfusion_jax.config import build
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.pipeline import collate
from mmfusion_jax.losses.objective import TASK


def test_every_model_is_here():
    assert {model_cases.config(name).model.name for name in model_cases.CASES} == set(
        MODELS
    )


class Subject:
    """A model with the objective of its config, and one program for all batches.

    Row i of the batch shall have the modalities `present[i]`: each set of them once,
    none at all, and at last all of them in a padding row.
    """

    def __init__(self, asked: ConfigDict):
        data = small_configs.digits(count=17)
        # The trace of a rule that remembers nothing is the gradient.
        made = build.build_components(resolve(asked), data, steps=10)
        self.parts = dataclasses.replace(made, tx=optax.trace(0.0))
        self.names = self.parts.modalities
        sets = [*itertools.product((True, False), repeat=len(self.names))]
        self.present = np.array([*sets, sets[0]])
        source = data.source("train")
        self.batch = collate([source[i] for i in range(len(self.present))])
        self.batch.weight[-1] = 0
        self.state = small_configs.start(self.parts, self.batch)

    @functools.cached_property
    def program(self):
        parts = self.parts
        step = parts.train_step(None)

        # What is compiled here runs a few times, so it may run slowly.
        options = {"xla_backend_optimization_level": 0}

        @functools.partial(jax.jit, compiler_options=options)
        def run(state, batch):
            after, metrics = step(state, batch)
            outputs = parts.model.apply(state.variables, batch, train=False)
            return {
                "metrics": metrics,
                "gradient": after.opt_state.trace,
                "stats": after.stats,
                "outputs": outputs,
                "scores": parts.task.metrics().collect(outputs, batch),
                "loss": parts.objective.value(TASK, outputs, batch),
            }

        return run

    def __call__(self, present: np.ndarray, bad: float = 0.0):
        """The result for the batch in which row i has the modalities present[i]."""
        masks = dict(self.batch.masks)
        for i, name in enumerate(self.names):
            masks[name] = masks[name] & present[:, i : i + 1]
        inputs = {}
        for name, x in self.batch.inputs.items():
            real = masks[name] & (self.batch.weight > 0)[:, None]
            fill = bad
            if np.issubdtype(x.dtype, np.integer):
                fill = np.iinfo(x.dtype).max if bad else 0
            inputs[name] = np.asarray(poisoned(x, real, fill))
        batch = self.batch.replace(inputs=inputs, masks=masks)
        return jax.device_get(self.program(self.state, batch))

    @property
    def answers(self) -> int:
        """Number of sets of modalities, empty or not, with different predictions."""
        count = 2 ** len(self.names)
        if getattr(self.parts.model.model, "image_encoder", "none") == "none":
            return count
        return count - len(self.names)  # of one alone there are no outer products


# Blocks have checks of their own; one of them in `fused` is enough for ci. Of MEA and
# aligned audio together both are there alone, and the other variants differ in a part.
VARIANTS = [
    name
    for name in model_cases.CASES
    if name.startswith("fused, ") and name != "fused, adaptive_gate"
] + ["mmtm", "mea, aligned audio", "mcl_mcf, images", "of_cmaer_cat, concat"]


@pytest.fixture(
    scope="module",
    params=in_ci(model_cases.CASES, "cfn_sr", "audio alone", slow=VARIANTS),
)
def subject(request) -> Subject:
    return Subject(model_cases.config(request.param))


def names(wanted: Callable[..., bool], *trees: Any) -> list[str]:
    """The leaves for which something holds."""
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(trees[0]), strict=True)
    columns = zip(paths, leaves, *map(jax.tree.leaves, trees[1:]), strict=True)
    return [jax.tree_util.keystr(path) for path, *x in columns if wanted(*x)]


def not_finite(tree: Any) -> list[str]:
    return names(lambda x: not np.isfinite(x).all(), tree)


def unlike(a: Any, b: Any) -> list[str]:
    return names(lambda x, y: x.tobytes() != y.tobytes(), a, b)


def test_subsets_in_one_batch(subject):
    mixed = subject(subject.present)
    assert not not_finite(mixed)
    assert not mixed["metrics"]["nonfinite/consecutive_steps"]
    for bad in POISON:
        assert not unlike(subject(subject.present, bad), mixed)
    assert subject.program._cache_size() == 1


def test_subsets_alone(subject):
    mixed, answers = subject(subject.present)["outputs"], set()
    for i, row in enumerate(subject.present[:-1]):
        found = subject(np.broadcast_to(row, subject.present.shape))
        assert not not_finite(found)
        of_row = lambda x, i=i: x[i]
        rows = (jax.tree.map(of_row, x) for x in (found["outputs"], mixed))
        assert not unlike(*rows), "others in the batch"
        answers.add(found["outputs"].prediction[0].tobytes())
    assert len(answers) == subject.answers, "all that is there must be read"
    assert subject.program._cache_size() == 1
