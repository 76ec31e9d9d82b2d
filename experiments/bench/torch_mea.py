"""MEA in PyTorch, written from its specification, to be measured beside ours.

All tokens are real: there are no masks. Dropout is 0.
"""

import torch
from torch import nn
from torch.nn import functional

from mmfusion_jax.layers.transformer import sinusoid


class TorchMEA(nn.Module):
    """The defaults of `models/mea.py` for sequences of features, one score.

    Args:
        widths: features of every modality, by its name.
        plain: attend by a matrix of weights rather than by PyTorch's fused kernel.
    """

    def __init__(
        self, widths, d=40, hidden=64, heads=8, own=3, cross=2, mu=0.25, plain=False
    ):
        super().__init__()
        self.order, self.own, self.cross = tuple(widths), own, cross
        each = lambda make: nn.ModuleDict({m: make() for m in widths})
        self.conv = nn.ModuleDict(
            {m: nn.Conv1d(f, d, 3, padding=1) for m, f in widths.items()}
        )
        self.lstm = each(
            lambda: nn.LSTM(d, d // 2, batch_first=True, bidirectional=True)
        )
        unit = lambda mu=0.0: Unit(d, heads, mu, plain)
        self.self_attention = nn.ModuleList(
            each(lambda i=i: unit(mu if i else 0.0)) for i in range(own)
        )
        self.look = nn.ModuleList(each(lambda: nn.Linear(d, d)) for _ in range(own))
        self.score = nn.ModuleList(
            each(lambda: nn.Linear(d, 1, bias=False)) for _ in range(own)
        )
        self.mixed = nn.ModuleList(each(unit) for _ in range(cross))
        self.coarse = nn.ModuleList(each(unit) for _ in range(cross))
        self.fine = nn.ModuleList(
            nn.ModuleDict({f"{t}_{s}": unit() for t, s in self.pairs()})
            for _ in range(cross)
        )
        perceptron = lambda: nn.Sequential(
            nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.exclusive, self.shared = each(perceptron), perceptron()
        self.graph_exclusive, self.graph_agnostic = Graph(hidden), Graph(hidden)
        self.hidden = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def pairs(self):
        """Targets and sources of the fine step."""
        return [(t, s) for t in self.order for s in self.order if s != t]

    def forward(self, inputs):
        """Maps modality -> (b t f) to scores (b), and h^e and h^a (b m d)."""
        z = {m: self.encode(m, x) for m, x in inputs.items()}
        own, common = self.refined(z), self.reinforced(z)
        h_e = [self.exclusive[m](own[m].mean(1)) for m in self.order]
        h_a = [self.shared(common[m].mean(1)) for m in self.order]
        h_e, h_a = torch.stack(h_e, 1), torch.stack(h_a, 1)
        fused = self.graph_exclusive(h_e), self.graph_agnostic(h_a)
        fused = torch.cat([standardised(x) for x in fused], -1)
        return self.head(functional.gelu(self.hidden(fused)))[:, 0], h_e, h_a

    def encode(self, m, x):
        """Eq. 1."""
        x = self.conv[m](x.transpose(1, 2)).transpose(1, 2)
        places = torch.from_numpy(sinusoid(x.shape[1], x.shape[2], first=0))
        return self.lstm[m](x + places)[0]

    def refined(self, z):
        """Predictive self-attention and the weights of modalities, Eq. 2-6."""
        scores = dict.fromkeys(self.order)
        for i in range(self.own):
            gamma, new = [], {}
            for m in self.order:
                unit = self.self_attention[i][m]
                new[m], scores[m] = unit.chained(z[m], scores[m])
                seen = torch.tanh(self.look[i][m](new[m]))
                gamma.append(self.score[i][m](seen)[..., 0].mean(1))
            psi = torch.softmax(torch.stack(gamma, 1), 1)
            z = {m: new[m] * psi[:, j, None, None] for j, m in enumerate(self.order)}
        return z

    def reinforced(self, z):
        """Hierarchical cross-modal attention, Eq. 10."""
        for i in range(self.cross):
            new = {}
            for t in self.order:
                others = [s for s in self.order if s != t]
                x = self.mixed[i][t](torch.cat([z[s] for s in self.order], 1), z[t])
                x = self.coarse[i][t](torch.cat([z[s] for s in others], 1), x)
                new[t] = sum(self.fine[i][f"{t}_{s}"](z[s], x) for s in others)
            z = new
        return z


class Unit(nn.Module):
    """An attention layer; with `mu`, one whose map the last layer helps to predict."""

    def __init__(self, d, heads, mu, plain):
        super().__init__()
        self.heads, self.mu, self.plain = heads, mu, plain
        self.norm, self.feed_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query = nn.Linear(d, d, bias=False)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.expand, self.shrink = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        if mu:
            self.conv = nn.Conv2d(heads, heads, 3, padding=1)

    def forward(self, source, target):
        """Eq. 7-9."""
        asking, seen = self.norm(target), self.norm(source)
        q, k, v = self.split(asking, seen)
        if self.plain:
            weights = torch.softmax(self.scores(q, k), -1)
            mixed = weights @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.finish(asking, mixed)

    def chained(self, x, previous):
        """Eq. 2-4, and the scores for the next layer."""
        x = self.norm(x)
        q, k, v = self.split(x, x)
        own = scores = self.scores(q, k)
        if previous is not None:
            predicted = functional.gelu(self.conv(previous))
            own = self.mu * predicted + (1 - self.mu) * torch.softmax(scores, -1)
        return self.finish(x, torch.softmax(own, -1) @ v), scores

    def split(self, asking, seen):
        """Queries, keys and values, (b k n d)."""
        pairs = (self.query, asking), (self.key, seen), (self.value, seen)
        return [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in pairs
        ]

    def scores(self, q, k):
        return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5

    def finish(self, asking, mixed):
        """The heads are added, then what the feed-forward network makes of that."""
        o = asking + mixed.transpose(1, 2).flatten(2)
        return o + self.shrink(functional.gelu(self.expand(self.feed_norm(o))))


class Graph(nn.Module):
    """Eq. 17-19."""

    def __init__(self, d):
        super().__init__()
        self.project = nn.Linear(d, d, bias=False)
        self.strength = nn.Linear(2 * d, 1)

    def forward(self, nodes):
        x = self.project(nodes)
        m = x.shape[1]
        pairs = [x[:, :, None].expand(-1, m, m, -1), x[:, None].expand(-1, m, m, -1)]
        delta = functional.gelu(self.strength(torch.cat(pairs, -1))[..., 0])
        delta = delta.masked_fill(torch.eye(m, dtype=torch.bool), -torch.inf)
        return torch.sigmoid(torch.softmax(delta, -1) @ x).sum(1)


def standardised(x):
    """Normalised over the last axis, without scale and bias."""
    return functional.layer_norm(x, x.shape[-1:])


def disparity(h_e, h_a):
    """Eq. 13-14."""
    h_e, h_a = (h - h.mean(0) for h in (h_e, h_a))
    product = torch.einsum("bmd,bme->mde", h_e, h_a)
    return product.square().sum((1, 2)).mean() / (len(h_e) - 1) ** 2


def load(network: TorchMEA, params) -> None:
    """Copies the parameters of our model into the network."""
    left = dict(network.named_parameters())
    for name, value in translated(network, params).items():
        with torch.no_grad():
            left.pop(name).copy_(torch.tensor(value))
    zero = [name for name in left if "bias_hh" in name]
    with torch.no_grad():
        for name in zero:
            left.pop(name).zero_()
    if left:
        raise ValueError(f"no values for {sorted(left)}")


def translated(network, params):
    """PyTorch's names -> arrays in PyTorch's layout."""
    own, cross = params["self_attention"], params["cross_attention"]
    found = {}
    for u, m in enumerate(network.order):
        found |= encoder(m, params[f"encoders_{m}"])
        found |= perceptron(f"exclusive.{m}", params[f"exclusive_{m}"])
        for i in range(network.own):
            weigh = own[f"weigh_{i}"]
            found |= unit(f"self_attention.{i}.{m}", own[f"layer_{i}"], u)
            found |= dense(f"look.{i}.{m}", weigh[f"{m}_look"])
            found |= dense(f"score.{i}.{m}", weigh[f"{m}_score"])
        for i in range(network.cross):
            found |= unit(f"mixed.{i}.{m}", cross[f"mixed_{i}"], u)
            found |= unit(f"coarse.{i}.{m}", cross[f"coarse_{i}"], u)
    for i in range(network.cross):
        for u, (t, s) in enumerate(network.pairs()):
            found |= unit(f"fine.{i}.{t}_{s}", cross[f"fine_{i}"], u)
    for branch in ("graph_exclusive", "graph_agnostic"):
        for part in ("project", "strength"):
            found |= dense(f"{branch}.{part}", params[branch][part])
    found |= perceptron("shared", params["shared"])
    return found | dense("hidden", params["hidden"]) | dense("head", params["head"])


def encoder(m, tree):
    """A convolution and an LSTM; its second bias is left out."""
    found = {
        f"conv.{m}.weight": tree["conv"]["kernel"].transpose(2, 1, 0),
        f"conv.{m}.bias": tree["conv"]["bias"],
    }
    names = {"input_kernel": "weight_ih", "recurrent_kernel": "weight_hh"}
    for way, end in enumerate(("_l0", "_l0_reverse")):
        for ours, theirs in (names | {"bias": "bias_ih"}).items():
            found[f"lstm.{m}.{theirs}{end}"] = tree["lstm"][ours][way].T
    return found


def unit(name, tree, u):
    """The attention layer at place `u` of those side by side."""
    found = {}
    for ours, theirs in ("norm", "norm"), ("feed", "feed_norm"):
        found[f"{name}.{theirs}.weight"] = tree[f"{ours}_scale"][u]
        found[f"{name}.{theirs}.bias"] = tree[f"{ours}_bias"][u]
    for part in ("query", "key", "value", "expand", "shrink"):
        found[f"{name}.{part}.weight"] = tree[part][u].T
    for part in ("expand", "shrink"):
        found[f"{name}.{part}.bias"] = tree[f"{part}_bias"][u]
    if "conv" in tree:
        found[f"{name}.conv.weight"] = tree["conv"][u].transpose(3, 2, 0, 1)
        found[f"{name}.conv.bias"] = tree["conv_bias"][u]
    return found


def perceptron(name, tree):
    """Two linear layers."""
    return dense(f"{name}.0", tree["expand"]) | dense(f"{name}.2", tree["shrink"])


def dense(name, tree):
    """A linear layer."""
    found = {f"{name}.weight": tree["kernel"].T}
    if "bias" in tree:
        found[f"{name}.bias"] = tree["bias"]
    return found
