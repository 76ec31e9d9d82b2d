"""Every model of the library at a size at which a test is quick, by a name."""

from typing import Any

import small_configs
from ml_collections import ConfigDict

from mmfusion_jax.fusion import FUSIONS

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


def inner_sites(name: str, **options) -> tuple[str, dict[str, Any]]:
    """A baseline with fusion blocks inside the encoders of CFN-SR."""
    word, changes = baseline(name, **options)
    video = {"name": "resnext_3d", "blocks": (1,), "base_channels": 4}
    changes["model"]["encoders"] = {**ENCODERS, "video": video}
    return word, changes


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
    "compact_bilinear": {"sketch_dim": 16},
    "split_attention": {"block_dim": 4, "block_dropout": 0.0},
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
    # Wide enough that no projection is 0 everywhere.
    "mcl_mcf, images": (
        "mcl_mcf",
        {"model.image_encoder": "tslc", "model.projection_dim": 12},
    ),
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
    "mcbp": baseline("mcbp", sketch_dim=16, hidden_dim=8),
    "mmtm": inner_sites("mmtm"),
    "msaf": inner_sites("msaf", block_dims=(4, 4), block_dropout=0.0),
    "concatenation, aligned audio": aligned(*baseline("concat_fc", hidden_dims=(8,))),
}
"""Name -> a config and what is changed in it."""


def config(name: str) -> ConfigDict:
    word, changes = CASES[name]
    return small_configs.small(word, **changes)
