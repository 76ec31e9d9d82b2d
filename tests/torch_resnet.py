"""Residual networks in PyTorch, over images or clips, with torchvision's names."""

import itertools

import torch
from torch import nn

CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def pair(dims, inside, out, size, stride=1):
    """A convolution and its norm."""
    conv = CONVS[dims](inside, out, size, stride, padding=size // 2, bias=False)
    return conv, NORMS[dims](out)


class Block(nn.Module):
    """Layers `conv1`, `bn1`, .. of images; `conv1.0`, `conv1.1`, .. of clips."""

    def __init__(self, dims, inside, planes, kind, stride):
        super().__init__()
        wide = planes * (4 if kind == "bottleneck" else 1)
        steps = [(inside, planes, 3, stride), (planes, wide, 3, 1)]
        if kind == "bottleneck":
            steps = [(inside, planes, 1, 1), (planes, planes, 3, stride)]
            steps.append((planes, wide, 1, 1))
        self.names = []
        for i, step in enumerate(steps, 1):
            conv, norm = pair(dims, *step)
            if dims == 3:
                self.add_module(f"conv{i}", nn.Sequential(conv, norm))
                self.names.append([f"conv{i}"])
            else:
                self.add_module(f"conv{i}", conv)
                self.add_module(f"bn{i}", norm)
                self.names.append([f"conv{i}", f"bn{i}"])
        self.downsample = None
        if stride > 1 or inside != wide:
            self.downsample = nn.Sequential(*pair(dims, inside, wide, 1, stride))

    def forward(self, x):
        y = x
        for i, names in enumerate(self.names):
            y = y if i == 0 else torch.relu(y)
            for name in names:
                y = self.get_submodule(name)(y)
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


class TorchResNet(nn.Module):
    """Maps (b c h w) or (b c t h w) to the last map."""

    def __init__(self, dims, blocks, kind, width):
        super().__init__()
        if dims == 3:
            conv = nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
            self.stem = nn.Sequential(conv, NORMS[3](width))
        else:
            self.conv1, self.bn1 = pair(2, 3, width, 7, 2)
        self.layers, inside = [], width
        for i, depth in enumerate(blocks, 1):
            planes = width * 2 ** (i - 1)
            wide = planes * (4 if kind == "bottleneck" else 1)
            strides = [2 if i > 1 else 1] + [1] * (depth - 1)
            widths = [inside] + [wide] * (depth - 1)
            stage = [
                Block(dims, w, planes, kind, s)
                for w, s in zip(widths, strides, strict=True)
            ]
            self.add_module(f"layer{i}", nn.Sequential(*stage))
            self.layers.append(f"layer{i}")
            inside = wide

    def forward(self, x):
        if hasattr(self, "stem"):
            x = torch.relu(self.stem(x))
        else:
            x = torch.relu(self.bn1(self.conv1(x)))
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        for name in self.layers:
            x = self.get_submodule(name)(x)
        return x


def stir(network):
    """Gives every weight, scale and statistic a distinct value."""
    generator = torch.Generator().manual_seed(0)
    rand = lambda x: torch.rand(x.shape, generator=generator)
    with torch.no_grad():
        for x in itertools.chain(network.parameters(), network.buffers()):
            if x.is_floating_point() and x.ndim == 1:
                x.copy_(0.5 + rand(x))
    return network.eval()
