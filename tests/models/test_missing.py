"""Any subset of modalities, example by example, for every model of the library."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
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
from mmfusion_jax.fusion import FUSIONS
from mmfusion_jax.losses.objective import TASK

ENCODERS = {
    "audio": {"name": "audio_cnn", "hidden_dim": 8, "channels": 4, "pool": 4},
    "video": {"name": "image_cnn", "channels": (4,)},
}
"""Encoders of the baselines, which accept any."""


def baseline(name: str, *modalities: str, **options) -> tuple[str, dict[str, Any]]:
    """CFN-SR's recipe for a baseline of its Table 1."""
    encoders = {m: ENCODERS[m] for m in modalities or ENCODERS}
    model = {"name": name, "encoders": encoders, **options}
    return "cfn_sr", {"model": model, "pretrain_unimodal": ()}


def late(rule: str, loss: str = "cross_entropy") -> tuple[str, dict[str, Any]]:
    word, changes = baseline("late_fusion", rule=rule)
    return word, {**changes, "losses.task.name": loss}


ALIGNED = {
    "model.encoders.audio.length": 5,
    "model.encoders.audio.encoder.hidden_dim": 4,
}
"""Audio of the small digits aligned to the words of their text."""


def aligned(word: str, changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A config whose audio is aligned by CTC to eight positions."""
    inner = changes["model"]["encoders"]["audio"]
    audio = {"name": "ctc_aligned", "length": 8, "encoder": {**inner, "pool": 1}}
    encoders = {**changes["model"]["encoders"], "audio": audio}
    ctc = {"name": "ctc", "weight": 0.1, "modalities": ("audio",)}
    model = {**changes["model"], "encoders": encoders}
    return word, {**changes, "model": model, "losses.ctc": ctc}


BLOCKS: dict[str, dict[str, Any]] = {
    "adaptive_gate": {"hidden_dim": 4},
    "residual_attention": {"hidden_dim": 4, "target": "video", "source": "audio"},
    "tensor_convolution": {
        "x": "audio",
        "y": "video",
        "into": "joint",
        "channels": (2, 1),
    },
}
"""Options of fusion blocks, where there must be some."""


def fused(fusion: str) -> tuple[str, dict[str, Any]]:
    """The model `fused` with any block; blocks with heads have two."""
    heads = ("attention", "alignment", "context", "unit")
    options = {"num_heads": 2} if fusion.endswith(heads) else {}
    options = BLOCKS.get(fusion, options)
    # A tensor convolution masks its result: one modality alone has no answer.
    streams = {"pooled_streams": ("joint", "audio", "video")}
    return baseline(
        "fused",
        fusion={"name": fusion, **options},
        projection_dim=8,
        pooling="attention",
        **(streams if fusion == "tensor_convolution" else {}),
    )


CONFIGS = small_configs.CONFIGS
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # Every config, so that a new paper is tested without a line here.
    **{path.stem: (path.stem, {}) for path in sorted(CONFIGS.glob("*.py"))},
    **{f"fused, {name}": fused(name) for name in FUSIONS},
    "cfn_sr, the other way": ("cfn_sr", {"model.cross": "video_to_audio"}),
    "mea, aligned audio": ("mea:digits_ctc", ALIGNED),
    "mcl_mcf, images": ("mcl_mcf", {"model.image_encoder": "tslc"}),
    "hetero_fusion_net, others": (
        "hetero_fusion_net",
        {
            "model.include_self": False,
            "model.residual": True,
            "model.gate": "softmax",
            "model.gate_hidden_dim": 0,
        },
    ),
    "early fusion": (
        "hetero_fusion_net:digits_early",
        {"model.hidden_dims": (8, 64, 32)},
    ),
    "late fusion": ("hetero_fusion_net:digits_late", {}),
    "of_cmaer_cat, concat": ("of_cmaer_cat", {"model.head_type": "concat"}),
    "audio alone": baseline("unimodal", "audio"),
    "video alone": baseline("unimodal", "video"),
    "average": late("average"),
    "product": late("product"),
    "multiplicative": late("multiplicative", "multiplicative"),
    "concatenation": baseline("concat_fc", hidden_dims=(8,)),
    "concatenation, aligned audio": aligned(*baseline("concat_fc", hidden_dims=(8,))),
}
"""Name -> a config and what is changed in it."""


def config(name: str) -> ConfigDict:
    word, changes = CASES[name]
    return small_configs.small(word, **changes)


def test_every_model_is_here():
    assert {config(name).model.name for name in CASES} == set(MODELS)


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
        if getattr(self.parts.model, "image_encoder", "none") == "none":
            return count
        return count - len(self.names)  # of one alone there are no outer products


@pytest.fixture(scope="module", params=in_ci(CASES, "cfn_sr", "audio alone"))
def subject(request) -> Subject:
    return Subject(config(request.param))


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
