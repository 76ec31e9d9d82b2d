"""Training steps of the five papers, with random inputs and random weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.training.state import TrainState, create_state
from mmfusion_jax.types import Batch

CONFIGS = Path(__file__).parents[2] / "configs"
VOCABULARY = 60
"""Random token ids are below; every config has at least as many words."""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A config and the shapes of its examples.

    Attributes:
        config: File of `configs` and the word after the colon.
        batch_size: Number of examples of a step.
        inputs: Modality -> shape and dtype of one example; None for the shapes that the
            dataset of the config declares.
        label: Name of the label, and its classes; a sentiment score if there are none.
        changes: Field of the config -> value.
        shapes: The shapes in words, for the table.
    """

    config: str
    batch_size: int
    inputs: Mapping[str, tuple[tuple[int, ...], str]] | None = None
    label: tuple[str, int] = ("score", 0)
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shapes: str = ""

    @property
    def name(self) -> str:
        """Name of the paper, as that of its config file."""
        return self.config.split(":")[0]


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step, and what it is called with.

    Attributes:
        parts: Model, objective and optimizer.
        state: Initial state, on the host.
        batch: Batch, on the host.
    """

    parts: build.TrainingComponents
    state: TrainState
    batch: Batch


_RANDOM = {
    f"model.encoders.{m}.weights": "random" for m in ("audio", "image", "text", "video")
}
_F = "float32"
_CFN_SR = Paper(
    "cfn_sr:ravdess",
    16,
    {"audio": ((212, 13), _F), "video": ((30, 224, 224, 3), "uint8")},
    ("emotion", 8),
    shapes="ResNeXt-50, 30x224x224",
)
REMAT = {"model.encoders.video.remat": True}
"""Changes with which CFN-SR's batch of 16 fits one chip of 16 GB in bfloat16."""

PAPERS = (
    _CFN_SR,
    dataclasses.replace(_CFN_SR, changes=REMAT, shapes=f"{_CFN_SR.shapes}, remat"),
    Paper(
        "mea:mosi",
        32,
        {"text": ((50, 300), _F), "video": ((500, 35), _F), "audio": ((375, 74), _F)},
        shapes="GloVe 50, audio 375, video 500 steps",
    ),
    Paper(
        "mcl_mcf:mosi",
        128,
        {"text": ((50,), "int32"), "audio": ((375, 5), _F), "video": ((500, 20), _F)},
        changes={"model.encoders.text.weights": "random"},
        shapes="BERT 50, audio 375, video 500 steps",
    ),
    Paper(
        "hetero_fusion_net:raw_clips",
        32,
        {
            "audio": ((48000,), _F),
            "image": ((1, 224, 224, 3), "uint8"),
            "text": ((64,), "int32"),
            "video": ((16, 112, 112, 3), "uint8"),
        },
        ("label", 7),
        {**_RANDOM, "data.vocabulary": "", "data.augmentations": {}},
        shapes="BERT 64, Wav2Vec 2.0 3 s, ResNet-50 224x224, R3D-18 16x112x112",
    ),
    Paper(
        "of_cmaer_cat:clips",
        32,
        {
            "video": ((16, 64, 64, 3), _F),
            "audio": ((130, 120), _F),
            "text": ((32,), "int32"),
        },
        ("label", 4),
        shapes="faces 16x64x64, audio 130x120, text 32",
    ),
)
"""The papers at their shapes, the most expensive one first."""

DIGITS = tuple(
    Paper(f"{name}:digits", 8, label=("digit", 10), shapes="digits")
    for name in ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")
)
"""The papers on digits, whose steps are compared with stored values."""

_SMALL_INPUTS = {
    "image": ((1, 6, 6, 1), _F),
    "audio": ((16, 3), _F),
    "video": ((3, 8, 8, 1), "uint8"),
    "text": ((5,), "int32"),
}
_SMALL = {
    "cfn_sr": {
        "model.encoders.audio.hidden_dim": 8,
        "model.encoders.audio.channels": 4,
        "model.encoders.audio.pool": 4,
        "model.encoders.video": dict(name="resnext_3d", blocks=(1,), base_channels=4),
        **{"model.hidden_dim": 8, "model.num_layers": 1, "model.num_heads": 2},
    },
    "mea": {
        **{f"model.encoders.{m}.hidden_dim": 4 for m in ("audio", "video", "text")},
        **{"model.hidden_dim": 8, "model.num_heads": 2},
    },
    "mcl_mcf": {
        "model.encoders.text.hidden_dim": 4,
        "model.encoders.text.num_heads": 2,
        "model.encoders.text.mlp_dim": 4,
        "model.encoders.audio.hidden_dim": 4,
        "model.encoders.video.hidden_dim": 4,
        **{"model.mixture_dim": 4, "model.projection_dim": 9, "model.hidden_dim": 4},
        **{"model.contrastive_dim": 4, "model.channels": (2, 1)},
    },
    "hetero_fusion_net": {
        "model.encoders.audio": dict(name="precomputed"),
        "model.encoders.text.hidden_dim": 4,
        "model.encoders.video": dict(name="image_cnn", channels=(4,)),
        **{"model.hidden_dim": 8, "model.num_heads": 2, "model.latent_dim": 4},
    },
    "of_cmaer_cat": {
        **{f"model.encoders.{m}.hidden_dim": 8 for m in _SMALL_INPUTS},
        **{"model.hidden_dim": 4, "model.context_layers": 1, "model.context_heads": 2},
    },
}
SMALL = tuple(
    dataclasses.replace(
        paper, batch_size=4, inputs=_SMALL_INPUTS, changes=_SMALL[paper.name]
    )
    for paper in DIGITS
)
"""The papers at shapes at which a step takes milliseconds on CPU, for --tiny."""


def build_step(
    paper: Paper,
    dtype: str,
    precision: str,
    changes: Mapping[str, Any] = {},  # noqa: B006
) -> Step:
    """Returns the training step of a paper, not compiled.

    Args:
        paper: The paper.
        dtype: "float32" or "bfloat16".
        precision: `matmul_precision` of the config. It replaces that of a
            `jax.default_matmul_precision` around the step.
        changes: Further fields of the config.
    """
    file, _, word = paper.config.partition(":")
    config = load_config(f"{CONFIGS / file}.py:{word}")
    config = config.copy_and_resolve_references().unlock()
    numbers = {"compute_dtype": dtype, "matmul_precision": precision}
    config.update_from_flattened_dict({**numbers, **paper.changes})
    config.update_from_flattened_dict({"data.batch_size": paper.batch_size, **changes})
    spec = resolve(config)
    data = _dataset(paper) if paper.inputs else build_data.describe_dataset(spec, 0)
    parts = build.build_components(spec, data, steps=100)
    batch = random_batch(data, paper.batch_size)
    init = lambda: create_state(parts.model, parts.tx, batch, jax.random.key(0))
    shapes = jax.eval_shape(init)
    params, zero = random_variables(shapes.params), np.zeros((), np.int32)
    state = TrainState(
        step=zero,
        params=params,
        stats=random_variables(shapes.stats),
        # On the host too: the state on the device is the caller's copy.
        opt_state=jax.device_get(jax.jit(parts.tx.init)(params)),
        key=jax.random.key(1),
        skipped_steps={"consecutive": zero, "total": zero},
    )
    return Step(parts, state, batch)


def _dataset(paper: Paper) -> Dataset:
    """Returns a dataset of which only the shapes are known."""
    from mmfusion_jax.data.dataset import RegressionTarget

    label, classes = paper.label
    names = tuple(f"class {i}" for i in range(classes))
    score = RegressionTarget(-3, 3, family="sentiment")
    kinds = {"classes": {label: names}} if classes else {"values": {label: score}}
    counts = {"train": 512, "valid": 64, "test": 64}
    assert paper.inputs is not None
    return outline_dataset(paper.name, paper.shapes, counts, paper.inputs, **kinds)


def random_batch(data: Dataset, size: int) -> Batch:
    """Returns random examples; the last steps of every third one are padding."""
    rng = np.random.default_rng(0)
    example = data.source("train")[0]
    inputs, masks, labels = {}, {}, {}
    for name, x in sorted(example["inputs"].items()):
        shape = (size, *x.shape)
        if np.issubdtype(x.dtype, np.floating):
            inputs[name] = rng.standard_normal(shape, np.float32)
        else:
            high = 256 if x.dtype == np.uint8 else VOCABULARY
            inputs[name] = rng.integers(1, high, shape).astype(x.dtype)
        length = x.shape[0]
        masks[name] = np.ones((size, length), bool)
        masks[name][2::3, length - length // 4 :] = False
    for name, y in sorted(example["labels"].items()):
        if name in data.values:
            low, high = data.values[name].low, data.values[name].high
            labels[name] = rng.uniform(low, high, size).astype(np.float32)
        else:
            count = len(data.classes[name]) if name in data.classes else 2
            labels[name] = rng.integers(count, size=(size, *y.shape)).astype(np.int32)
    return Batch(inputs, masks, labels, np.ones(size, np.float32))


def random_variables(shapes: Any) -> Any:
    """Returns random variables of the given shapes: kernels, biases and statistics."""
    # NumPy and not `model.init`: the numbers are the same with every version of JAX,
    # and the initialization need not be compiled.
    flat = flatten_dict(shapes)
    leaf = lambda i, path: _leaf(i, path[-1], flat[path])
    return unflatten_dict({p: leaf(i, p) for i, p in enumerate(sorted(flat))})


def _leaf(index: int, name: str, spec: Any) -> np.ndarray:
    """Returns one array of variables."""
    if name == "var":
        return np.ones(spec.shape, spec.dtype)
    rng = np.random.default_rng(index)
    # Large arrays repeat a block: drawing 300 million numbers would take seconds.
    block = rng.standard_normal(min(spec.size, 999_983), np.float32)
    values = np.resize(block, spec.shape)
    if name == "mean":
        values = 0 * values
    elif len(spec.shape) > 1:
        values *= 1 / np.sqrt(spec.size / spec.shape[-1])
    else:
        values = 0.1 * values + (name == "scale")
    return values.astype(spec.dtype)


def as_double(tree: Any) -> Any:
    """Returns a tree with float64 instead of float32, for the stored values."""
    wide = lambda x: (
        np.asarray(x, np.float64) if getattr(x, "dtype", None) == np.float32 else x
    )
    return jax.tree.map(wide, tree)


def to_device(tree: Any) -> Any:
    """Copies a tree to the default device."""
    return jax.tree.map(jnp.asarray, tree)
