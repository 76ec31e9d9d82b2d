"""Small models of MCL-MCF and made-up batches for them."""

import functools

import jax
import jax.numpy as jnp
from loaded_tables import LOSSES

from mmfusion_jax.encoders.bert import Bert
from mmfusion_jax.encoders.lstm import LSTMEncoder
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.types import Batch

PAIRS = (
    "level1/text_audio",
    "level1/text_video",
    "level1/video_audio",
    "level2/text_video_audio",
    "level2/video_text_audio",
    "level2/audio_text_video",
    "level2/audio_text_video_audio",
    "level3/text_video_text_audio",
    "level3/text_video_video_audio",
    "level3/text_audio_video_audio",
)
"""Pairs of views, by their names in `Outputs.aux`."""


def small(text=None, **options):
    text = text or Bert(
        24, 2, 4, 40, vocab_size=50, max_position_embeddings=16, dropout=0.0
    )
    encoders = {"text": text, "audio": LSTMEncoder(8), "video": LSTMEncoder(8)}
    sizes = {
        "mixture_dim": 8,
        "projection_dim": 16,
        "hidden_dim": 10,
        "contrastive_dim": 12,
        "dropout": 0.0,
    }
    return MCLMCF(encoders, 1, **(sizes | options))


def objective(scale, weight=0.05):
    terms = {"task": WeightedLoss(LOSSES["l1"]("label"), 1.0)}
    for i in "123":
        pairs = tuple(p for p in PAIRS if p.startswith(f"level{i}"))
        terms[f"level{i}"] = WeightedLoss(LOSSES["info_nce"](pairs, scale), weight)
    return Objective(terms)


def made_up(b=4, video=6, audio=5):
    key = jax.random.key(3)
    t = {"text": 5, "audio": 7, "video": 6}
    inputs = {
        "text": jax.random.randint(key, (b, 5), 0, 50),
        "audio": jax.random.normal(key, (b, 7, audio)),
        "video": jax.random.normal(key, (b, 6, video)),
    }
    masks = {m: jnp.arange(n) < n - jnp.arange(b)[:, None] % 3 for m, n in t.items()}
    return Batch(inputs, masks, {"label": jnp.linspace(-1, 1, b)}, jnp.ones(b))


def count(model, batch):
    init = functools.partial(model.init, train=True)
    tree = jax.eval_shape(init, jax.random.key(0), batch)["params"]
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in tree.items()}
    sizes.pop("encoders_text")
    return sizes


def loss_of(batch, params):
    rngs = {"dropout": jax.random.key(0)}
    outputs = small().apply(params, batch, train=True, rngs=rngs)
    value, _ = objective(1 / 0.07)(outputs, batch, 0)
    return value + jnp.sum(outputs.prediction**2)
