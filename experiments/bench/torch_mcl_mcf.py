"""MCL-MCF in PyTorch, from the paper's equations; the text is precomputed."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

PAIRS = {
    "tcf_text_video": ("text", "video"),
    "tcf_text_audio": ("text", "audio"),
    "tcf_video_audio": ("video", "audio"),
}
LEVEL1 = (("text", "audio"), ("text", "video"), ("video", "audio"))
LEVEL2 = (
    ("text", "video", "audio"),
    ("video", "text", "audio"),
    ("audio", "text", "video"),
    ("audio", "text", "video", "audio"),
)
ORDER = ("text", "audio", "video")
SCALE = 1 / 0.07


class Contrast(nn.Module):
    """Two projections, and symmetric InfoNCE (Algorithm 1)."""

    def __init__(self, x: int, y: int, dim: int):
        super().__init__()
        self.x, self.y = nn.Linear(x, dim), nn.Linear(y, dim)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Returns the loss of (b d) and (b e), ()."""
        x, y = (functional.normalize(f(z)) for f, z in ((self.x, x), (self.y, y)))
        logits = SCALE * x @ y.T
        targets = torch.arange(len(x))
        rows, columns = (
            functional.cross_entropy(z, targets) for z in (logits, logits.T)
        )
        return (rows + columns) / 2


class TorchMCLMCF(nn.Module):
    """MCL-MCF with its three levels of contrastive loss.

    The outer product is materialized and convolved as an image; with `checkpoint` its
    activations are rematerialized in the backward pass.

    Args:
        features: Features of every modality, by its name.
        dims: Widths by the names of `models/mcl_mcf.py`, such as "projection_dim".
        checkpoint: Rematerialize the activations of the images.
    """

    def __init__(self, features: dict[str, int], dims: dict, checkpoint: bool = True):
        super().__init__()
        encoded = {m: dims["encoder_dim"] for m in features}
        encoded["text"] = features["text"]
        projected, hidden = dims["projection_dim"], dims["hidden_dim"]
        total = sum(encoded.values())
        layers = {}
        for m in ("audio", "video"):
            layers[f"lstm_{m}"] = nn.LSTM(features[m], encoded[m], batch_first=True)
            layers[f"out_{m}"] = nn.Linear(encoded[m], encoded[m])
        layers |= {f"lift_{m}": nn.Linear(d, projected) for m, d in encoded.items()}
        layers["mix"] = nn.Linear(total, projected)
        layers["fuse"] = nn.Linear(4 * projected, projected)
        layers["hidden_0"] = nn.Linear(projected, hidden)
        layers["hidden_1"] = nn.Linear(hidden, hidden)
        layers["head"] = nn.Linear(hidden, 1)
        layers |= {k: _convolutions(dims["channels"]) for k in PAIRS}
        self.levels = {1: [], 2: [], 3: []}

        def contrast(level: int, names: tuple[str, ...], x: int, y: int) -> None:
            name = f"level{level}_{'_'.join(names)}"
            layers[name] = Contrast(x, y, dims["contrastive_dim"])
            self.levels[level].append((name, names))

        for x, y in LEVEL1:
            contrast(1, (x, y), encoded[x], encoded[y])
        for x, *others in LEVEL2:
            size, mixture = sum(encoded[m] for m in others), dims["mixture_dim"]
            layers[f"mix_{'_'.join(others)}"] = nn.Linear(size, mixture)
            contrast(2, (x, *others), encoded[x], mixture)
        # Every 3x3 convolution without padding shrinks the image by 2.
        edge = projected - 2 * len(dims["channels"])
        image = edge**2 * dims["channels"][-1]
        tv, ta, va = PAIRS.values()
        for x, y in ((tv, ta), (tv, va), (ta, va)):
            contrast(3, x + y, image, image)
        self.layers = nn.ModuleDict(layers)
        self.checkpoint = checkpoint

    def forward(self, inputs: dict[str, torch.Tensor]):
        """Returns the scores (b), and in training the contrastive losses' sum."""
        at = self.layers
        z = {"text": inputs["text"][:, 0]}
        for m in ("audio", "video"):
            z[m] = at[f"out_{m}"](at[f"lstm_{m}"](inputs[m])[1][0][0])
        projected = {m: functional.relu(at[f"lift_{m}"](z[m])) for m in z}
        joined = lambda values, names: torch.cat([values[m] for m in names], -1)
        q = functional.relu(at["mix"](joined(z, ORDER)))
        h = at["fuse"](torch.cat([joined(projected, ORDER), q], -1))
        for name in ("hidden_0", "hidden_1"):
            h = torch.tanh(at[name](h))
        score = at["head"](h)[:, 0]
        if not self.training:
            return score
        images = {pair: self._image(k, projected) for k, pair in PAIRS.items()}
        first = sum(at[k](z[x], z[y]) for k, (x, y) in self.levels[1])
        mixed = lambda names: at[f"mix_{'_'.join(names)}"](joined(z, names))
        second = sum(at[k](z[x], mixed(names)) for k, (x, *names) in self.levels[2])
        third = sum(at[k](images[n[:2]], images[n[2:]]) for k, n in self.levels[3])
        return score, first + second + third

    def _image(self, name: str, projected: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the convolved outer product, Eq. 14-15."""
        x, y = (projected[m] for m in PAIRS[name])

        def convolved(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            image = torch.einsum("bi,bj->bij", x, y)[:, None]
            return self.layers[name](image).flatten(1)

        if self.checkpoint:
            return checkpoint(convolved, x, y, use_reentrant=False)
        return convolved(x, y)


def _convolutions(channels: tuple[int, ...]) -> nn.Sequential:
    """Returns 3x3 convolutions with ReLU."""
    layers = []
    for c, k in zip((1, *channels[:-1]), channels, strict=True):
        layers += [nn.Conv2d(c, k, 3), nn.ReLU()]
    return nn.Sequential(*layers)


def load(network: TorchMCLMCF, params: dict) -> None:
    """Copies the parameters of the JAX model, which have the same names."""
    at = network.layers
    for m in ("audio", "video"):
        source, lstm = params[f"encoders_{m}"], at[f"lstm_{m}"]
        _put(lstm.weight_ih_l0, source["lstm"]["input_kernel"][0].T)
        _put(lstm.weight_hh_l0, source["lstm"]["recurrent_kernel"][0].T)
        _put(lstm.bias_ih_l0, source["lstm"]["bias"][0])
        # PyTorch's LSTM has two biases, which are added; the JAX model has one.
        _put(lstm.bias_hh_l0, 0 * source["lstm"]["bias"][0])
        _linear(at[f"out_{m}"], source["out"])
    for name in params.keys() & at.keys():
        _layer(at[name], params[name])


def _layer(layer: nn.Module, weight: dict) -> None:
    """Copies a linear layer, two projections, or a sequence of convolutions."""
    if isinstance(layer, Contrast):
        _linear(layer.x, weight["x"])
        _linear(layer.y, weight["y"])
    elif isinstance(layer, nn.Sequential):
        for i, convolution in enumerate(layer[::2]):
            _put(convolution.weight, weight[f"kernel_{i}"].transpose(3, 2, 0, 1))
            _put(convolution.bias, weight[f"bias_{i}"])
    else:
        _linear(layer, weight)


def _linear(layer: nn.Linear, weight: dict) -> None:
    """Copies a linear layer."""
    _put(layer.weight, weight["kernel"].T)
    _put(layer.bias, weight["bias"])


def _put(target: torch.Tensor, value: np.ndarray) -> None:
    """Copies an array into a tensor."""
    with torch.no_grad():
        target.copy_(torch.tensor(np.array(value)))
