"""The configs of all papers and baselines, at sizes at which a test is quick."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mmfusion_jax.config.build import TrainingComponents
from mmfusion_jax.config.load import load_config
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.training.state import TrainState, create_state
from mmfusion_jax.types import Batch

CONFIGS = Path(__file__).parent.parent / "configs"
CLASSES = ("low", "middle", "high")
SHAPES = {
    "image": (1, 6, 6, 1),
    "audio": (16, 3),
    "video": (3, 8, 8, 1),
    "text": (5,),
}
"""Shapes of one example of the small digits; the first axis is time."""

WORDS = 8
CONV_LSTM = {f"model.encoders.{m}.hidden_dim": 4 for m in ("audio", "video", "text")}
SMALL = {
    "cfn_sr": {
        "model.encoders.audio": {"name": "audio_cnn", "hidden_dim": 8, "channels": 4,
                                 "pool": 4},
        "model.encoders.video": {"name": "resnext_3d", "blocks": (1,),
                                 "base_channels": 4},
        "model.hidden_dim": 8, "model.num_layers": 1, "model.num_heads": 2,
    },
    "mea": {
        **CONV_LSTM, "model.encoders.text.vocab_size": WORDS,
        "model.hidden_dim": 8, "model.num_heads": 2,
    },
    "mcl_mcf": {
        "model.encoders.text": {"name": "bert", "hidden_dim": 4, "num_layers": 1,
                                "num_heads": 2, "mlp_dim": 4, "vocab_size": WORDS,
                                "max_position_embeddings": 5},
        "model.encoders.audio.hidden_dim": 4, "model.encoders.video.hidden_dim": 4,
        "model.mixture_dim": 4, "model.projection_dim": 9, "model.hidden_dim": 4,
        "model.contrastive_dim": 4,
        "model.channels": (2, 1),
    },
    "hetero_fusion_net": {
        "model.encoders.audio": {"name": "precomputed"},
        "model.encoders.text": {"name": "conv_lstm", "hidden_dim": 4,
                                "vocab_size": WORDS},
        "model.encoders.video": {"name": "image_cnn", "channels": (4,)},
        "model.hidden_dim": 8, "model.num_heads": 2, "model.gate_hidden_dim": 4,
        "model.latent_dim": 4,
    },
    "of_cmaer_cat": {
        **{f"model.encoders.{m}.hidden_dim": 8 for m in SHAPES},
        "model.encoders.text.vocab_size": WORDS,
        "model.hidden_dim": 4, "model.weight_hidden_dim": 4, "model.context_layers": 1,
        "model.context_heads": 2,
    },
}  # fmt: skip
"""Config -> what makes it small."""


def small(word: str, **changes) -> ConfigDict:
    """A config such as "mea" or "hetero_fusion_net:digits_late", small and changed."""
    name = word.split(":")[0]
    file, _, data = word.partition(":")
    made = load_config(f"{CONFIGS / file}.py:{data or 'digits'}")
    made = made.copy_and_resolve_references().unlock()
    smaller = {k: v for k, v in SMALL.get(name, {}).items() if _fits(made, k)}
    made.update_from_flattened_dict(
        {"data.num_read_threads": 1, "train.diagnosis": False, **smaller, **changes}
    )
    return made


def _fits(config: ConfigDict, path: str) -> bool:
    """Returns whether a config has the field."""
    *groups, last = path.split(".")
    for group in groups:
        config = config[group]
    return last in config


def digits(
    *,
    modalities: Sequence[str] | None = None,
    missing_rate: float = 0.0,
    cache_dir: str = "",
    count: int = 12,
) -> Dataset:
    """Replaces the embedded digits: random data, three classes, all four modalities.

    Video is float, so that it can contain NaN.
    """
    sources = {
        split: _source(rows, seed, tuple(modalities or SHAPES), missing_rate)
        for seed, (split, rows) in enumerate(
            {"train": count, "valid": 6, "test": 6}.items()
        )
    }
    return Dataset("digits", "small digits (made up)", sources, {"digit": CLASSES})


def _source(rows: int, seed: int, modalities: tuple[str, ...], missing: float):
    rng = np.random.default_rng(seed)
    label = (np.arange(rows) % len(CLASSES)).astype(np.int32)
    inputs, masks = {}, {}
    for name in modalities:
        shape = (rows, *SHAPES[name])
        if name == "text":
            inputs[name] = rng.integers(1, WORDS, shape).astype(np.int32)
        else:
            shift = label.reshape(-1, *[1] * (len(shape) - 1)) - 1
            inputs[name] = (shift + rng.normal(size=shape)).astype(np.float32)
        lacking = (rng.random(rows) < missing) & (name != modalities[0])
        masks[name] = np.ones(shape[:2], bool) & ~lacking[:, None]
        masks[name][1::3, -1] &= shape[1] < 3  # the last step is padding
    return InMemory(inputs, masks, {"digit": label})


def start(parts: TrainingComponents, batch: Batch) -> TrainState:
    """An initial state with random weights, without compiling its initialization."""
    init = lambda: create_state(parts.model, parts.tx, batch, jax.random.key(0))
    shapes = jax.eval_shape(init)
    params, zero = filled(shapes.params), jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        stats=filled(shapes.stats),
        opt_state=parts.tx.init(params),
        key=jax.random.key(1),
        skipped_steps={"consecutive": zero, "total": zero},
    )


def filled(shapes):
    """Random variables of the given shapes; those of norms are near 1."""
    rng = np.random.default_rng(0)
    near_1 = lambda path: path[-1] in ("scale", "var")
    value = lambda path, x: rng.uniform(-0.3, 0.3, x.shape) + near_1(path)
    flat = flatten_dict(shapes).items()
    return unflatten_dict({p: jnp.asarray(value(p, x), x.dtype) for p, x in flat})
