"""Every fusion block does what a block must: the kit checks it.

Blocks are found in the modules of the package: no second list of them.
"""

import functools
import importlib
import inspect
import pkgutil

import flax.linen as nn
import pytest
from groups import in_ci

from mmfusion_jax import fusion, testing
from mmfusion_jax.fusion.reinforcement_unit import ReinforcementUnit

NAMES = ("audio", "text", "video")
UNIT = functools.partial(ReinforcementUnit, num_heads=2, dropout=0.0)
OPTIONS = {
    "AdaptiveGate": {"modalities": NAMES, "hidden_dim": 4},
    "CompactBilinear": {"modality_order": NAMES, "sketch_dim": 8},
    "CrossModalAlignment": {"modality_order": NAMES, "num_heads": 2},
    "HierarchicalAttention": {"modality_order": NAMES, "block": UNIT, "num_layers": 1},
    "HierarchicalFusion": {
        "modality_order": NAMES,
        "num_heads": 2,
        "dropout": 0.0,
        "num_layers": 1,
    },
    "ModalityAttention": {"modalities": NAMES, "num_heads": 2},
    "ModalityGraph": {"modality_order": NAMES},
    "ModalityReinforcement": {"modality_order": NAMES, "num_heads": 2, "dropout": 0.0},
    "ModalityWeights": {"modality_order": NAMES},
    "MultimodalTransfer": {"modality_order": NAMES},
    "PredictiveFusion": {
        "modality_order": NAMES,
        "num_heads": 2,
        "dropout": 0.0,
        "num_layers": 1,
    },
    "PredictiveSelfAttention": {
        "modality_order": NAMES,
        "block": functools.partial(UNIT, mu=0.3),
        "num_layers": 1,
    },
    "ResidualAttention": {"hidden_dim": 8, "target": "video", "source": "audio"},
    "SplitAttention": {"modality_order": NAMES, "block_dim": 4, "block_dropout": 0.0},
    "StackedModalities": {"modality_order": NAMES},
    "TensorConvolution": {"x": "audio", "y": "video", "into": "z", "channels": (2, 1)},
    "TransformerContext": {"modality_order": NAMES, "num_layers": 1, "num_heads": 2},
    "WeightedModalities": {"modality_order": NAMES, "hidden_dim": 4},
}
"""Block -> its arguments; a block that is not here is made without any."""

CHECKS = {
    "AdaptiveGate": {"fixed_length": True},
    "ModalityAttention": {"fixed_length": True},
    "PredictiveFusion": {"positional": True},
    "PredictiveSelfAttention": {"positional": True},
    "SplitAttention": {"batch_statistics": True},
    "TensorConvolution": {"streams": {"audio": (1, 8), "video": (1, 8)}},
    "TransformerContext": {"positional": True},
}
"""Block -> arguments of its check."""


def blocks() -> dict[str, type]:
    """The modules whose first argument is `streams`, by name."""
    found = {}
    for module in pkgutil.iter_modules(fusion.__path__, f"{fusion.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and issubclass(value, nn.Module):
                arguments = list(inspect.signature(value.__call__).parameters)
                if arguments[1:2] == ["streams"] and value.__module__ == module.name:
                    found[name] = value
    return found


BLOCKS = blocks()


def test_blocks_are_found():
    assert set(OPTIONS) <= set(BLOCKS)


# The first three contain blocks that are checked too.
SLOW = ("HierarchicalFusion", "ModalityReinforcement", "PredictiveFusion")
SLOW += ("CompactBilinear", "SplitAttention")


@pytest.mark.parametrize("name", in_ci(BLOCKS, "Identity", slow=SLOW))
def test_properties(name):
    block = BLOCKS[name](**OPTIONS.get(name, {}))
    report = testing.check_fusion(block, **CHECKS.get(name, {}))
    assert len(report.checked) + len(report.not_checked) == 19
    not_checked = report.not_checked.get("second derivatives exist")
    assert not_checked in (None, "it does not have parameters")
