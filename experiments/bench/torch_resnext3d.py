"""The network of `encoders/resnext3d.py` in PyTorch, for speed comparisons."""

import numpy as np
import torch
from torch import nn


class TorchResNeXt3D(nn.Module):
    """Layers of `ResNeXt3D` in the same order, with PyTorch's parameter names.

    Attributes:
        stages: Bottlenecks in order, with the names of the JAX encoder.
    """

    def __init__(self, blocks=(3, 4, 6, 3), width=64, cardinality=32, channels=3):
        super().__init__()
        self.stem = nn.Conv3d(channels, width, 7, (1, 2, 2), 3, bias=False)
        self.stem_norm = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d(3, 2, 1)
        self.stages = nn.ModuleDict()
        last = width
        for i, depth in enumerate(blocks):
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                planes = 2 * width * 2**i
                block = TorchBottleneck(last, planes, cardinality, stride)
                self.stages[f"stage{i + 1}_block{j}"] = block
                last = 4 * width * 2**i

    def forward(self, x):
        """Maps (b c t h w) to (b d s h w)."""
        x = self.pool(torch.relu(self.stem_norm(self.stem(x))))
        for block in self.stages.values():
            x = block(x)
        return x


class TorchBottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 and 1x1x1 convolutions, and a shortcut."""

    def __init__(self, last, planes, cardinality, stride):
        super().__init__()
        out = 2 * planes
        self.reduce = nn.Conv3d(last, planes, 1, bias=False)
        self.reduce_norm = nn.BatchNorm3d(planes)
        self.conv = nn.Conv3d(
            planes, planes, 3, stride, 1, groups=cardinality, bias=False
        )
        self.conv_norm = nn.BatchNorm3d(planes)
        self.expand = nn.Conv3d(planes, out, 1, bias=False)
        self.expand_norm = nn.BatchNorm3d(out)
        if stride > 1 or last != out:
            self.shortcut = nn.Conv3d(last, out, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm3d(out)

    def forward(self, x):
        """Maps (b c s h w) to (b 2*planes s' h' w')."""
        y = torch.relu(self.reduce_norm(self.reduce(x)))
        y = torch.relu(self.conv_norm(self.conv(y)))
        y = self.expand_norm(self.expand(y))
        if hasattr(self, "shortcut"):
            x = self.shortcut_norm(self.shortcut(x))
        return torch.relu(x + y)


NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def load(network: TorchResNeXt3D, leaves: dict[tuple[str, ...], np.ndarray]) -> None:
    """Copies the flattened variables of the JAX encoder into the network."""
    state = {}
    for path, value in leaves.items():
        value = np.asarray(value)
        # The JAX encoder stores kernels of 1x1x1 convolutions as matrices.
        if value.ndim == 2:
            value = value[None, None, None]
        if value.ndim == 5:
            value = value.transpose(4, 3, 0, 1, 2)
        state[name(path)] = torch.tensor(np.ascontiguousarray(value))
    # PyTorch counts batches in its BatchNorm; the JAX encoder does not.
    missing, unused = network.load_state_dict(state, strict=False)
    assert not unused and all("num_batches" in key for key in missing)


def gradients(network: TorchResNeXt3D) -> dict[str, np.ndarray]:
    """Returns the gradients by PyTorch's names, in the layout of the JAX encoder."""
    return {
        key: _jax_layout(parameter.grad.numpy())
        for key, parameter in network.named_parameters()
    }


def name(path: tuple[str, ...]) -> str:
    """Returns PyTorch's name of a leaf such as ("params", "stem", "kernel")."""
    _, *module, leaf = path
    stages = ["stages"] if module[0].startswith("stage") else []
    return ".".join([*stages, *module, NAMES[leaf]])


def _jax_layout(value: np.ndarray) -> np.ndarray:
    """Returns a gradient in the layout of the JAX encoder."""
    if value.ndim < 5:
        return value
    value = value.transpose(2, 3, 4, 1, 0)
    return value[0, 0, 0] if value.shape[:3] == (1, 1, 1) else value
