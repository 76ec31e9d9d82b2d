"""MEA in PyTorch, from its specification, for speed comparisons.

All tokens are valid: masks are not needed. Dropout is 0.
"""

import torch
from torch import nn
from torch.nn import functional

from mmfusion_jax.layers.transformer import sinusoid


class TorchMEA(nn.Module):
    """MEA with the defaults of `models/mea.py`, for features and one score.

    Args:
        features: Features of every modality, by its name.
        plain: Materialize the attention weights instead of PyTorch's fused kernel.
    """

    def __init__(
        self, features, d=40, hidden=64, heads=8, psa=3, hca=2, mu=0.25, plain=False
    ):
        super().__init__()
        self.order, self.psa, self.hca = tuple(features), psa, hca
        each = lambda make: nn.ModuleDict({m: make() for m in features})
        self.conv = nn.ModuleDict(
            {m: nn.Conv1d(f, d, 3, padding=1) for m, f in features.items()}
        )
        self.lstm = each(
            lambda: nn.LSTM(d, d // 2, batch_first=True, bidirectional=True)
        )
        unit = lambda mu=0.0: Unit(d, heads, mu, plain)
        # The first layer has no scores of a previous one.
        self.self_attention = nn.ModuleList(
            each(lambda i=i: unit(mu if i else 0.0)) for i in range(psa)
        )
        self.look = nn.ModuleList(each(lambda: nn.Linear(d, d)) for _ in range(psa))
        self.score = nn.ModuleList(
            each(lambda: nn.Linear(d, 1, bias=False)) for _ in range(psa)
        )
        self.mixed = nn.ModuleList(each(unit) for _ in range(hca))
        self.coarse = nn.ModuleList(each(unit) for _ in range(hca))
        self.fine = nn.ModuleList(
            nn.ModuleDict({f"{t}_{s}": unit() for t, s in self.pairs()})
            for _ in range(hca)
        )
        mlp = lambda: nn.Sequential(
            nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.exclusive, self.shared = each(mlp), mlp()
        self.graph_exclusive, self.graph_agnostic = Graph(hidden), Graph(hidden)
        self.hidden = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def pairs(self):
        """Returns targets and sources of the fine step."""
        return [(t, s) for t in self.order for s in self.order if s != t]

    def forward(self, inputs):
        """Maps inputs (b t f) by modality to scores (b), and h^e and h^a (b m d)."""
        z = {m: self.encode(m, x) for m, x in inputs.items()}
        exclusive, agnostic = self.self_attend(z), self.cross_attend(z)
        h_e = [self.exclusive[m](exclusive[m].mean(1)) for m in self.order]
        h_a = [self.shared(agnostic[m].mean(1)) for m in self.order]
        h_e, h_a = torch.stack(h_e, 1), torch.stack(h_a, 1)
        fused = self.graph_exclusive(h_e), self.graph_agnostic(h_a)
        fused = torch.cat([layer_norm(x) for x in fused], -1)
        return self.head(functional.gelu(self.hidden(fused)))[:, 0], h_e, h_a

    def encode(self, m, x):
        """Applies convolution, position encoding and LSTM, Eq. 1."""
        x = self.conv[m](x.transpose(1, 2)).transpose(1, 2)
        positions = torch.from_numpy(sinusoid(x.shape[1], x.shape[2], first=0))
        return self.lstm[m](x + positions)[0]

    def self_attend(self, z):
        """Applies predictive self-attention and modality weights, Eq. 2-6."""
        scores = dict.fromkeys(self.order)
        for i in range(self.psa):
            gamma, new = [], {}
            for m in self.order:
                unit = self.self_attention[i][m]
                new[m], scores[m] = unit.chained(z[m], scores[m])
                hidden = torch.tanh(self.look[i][m](new[m]))
                gamma.append(self.score[i][m](hidden)[..., 0].mean(1))
            psi = torch.softmax(torch.stack(gamma, 1), 1)
            z = {m: new[m] * psi[:, j, None, None] for j, m in enumerate(self.order)}
        return z

    def cross_attend(self, z):
        """Applies hierarchical cross-modal attention, Eq. 10."""
        for i in range(self.hca):
            new = {}
            for t in self.order:
                others = [s for s in self.order if s != t]
                x = self.mixed[i][t](torch.cat([z[s] for s in self.order], 1), z[t])
                x = self.coarse[i][t](torch.cat([z[s] for s in others], 1), x)
                new[t] = sum(self.fine[i][f"{t}_{s}"](z[s], x) for s in others)
            z = new
        return z


class Unit(nn.Module):
    """An attention layer; with `mu`, it also uses the scores of the last layer."""

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
        """Attends from target to source, Eq. 7-9."""
        queries, keys = self.norm(target), self.norm(source)
        q, k, v = self.split(queries, keys)
        if self.plain:
            weights = torch.softmax(self.scores(q, k), -1)
            mixed = weights @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.finish(queries, mixed)

    def chained(self, x, previous):
        """Returns the output, Eq. 2-4, and the scores for the next layer."""
        x = self.norm(x)
        q, k, v = self.split(x, x)
        weights = scores = self.scores(q, k)
        if previous is not None:
            predicted = functional.gelu(self.conv(previous))
            weights = self.mu * predicted + (1 - self.mu) * torch.softmax(scores, -1)
        return self.finish(x, torch.softmax(weights, -1) @ v), scores

    def split(self, queries, keys):
        """Returns queries, keys and values, (b k n d)."""
        pairs = (self.query, queries), (self.key, keys), (self.value, keys)
        return [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in pairs
        ]

    def scores(self, q, k):
        """Returns scaled products of queries and keys, before the softmax."""
        return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5

    def finish(self, queries, mixed):
        """Adds the heads, then the output of the feed-forward network."""
        o = queries + mixed.transpose(1, 2).flatten(2)
        return o + self.shrink(functional.gelu(self.expand(self.feed_norm(o))))


class Graph(nn.Module):
    """Graph fusion, Eq. 17-19."""

    def __init__(self, d):
        super().__init__()
        self.project = nn.Linear(d, d, bias=False)
        self.strength = nn.Linear(2 * d, 1)

    def forward(self, nodes):
        """Maps nodes (b m d) to their sum after one step of attention, (b d)."""
        x = self.project(nodes)
        m = x.shape[1]
        pairs = [x[:, :, None].expand(-1, m, m, -1), x[:, None].expand(-1, m, m, -1)]
        delta = functional.gelu(self.strength(torch.cat(pairs, -1))[..., 0])
        # Without self-loops, the default of the library.
        delta = delta.masked_fill(torch.eye(m, dtype=torch.bool), -torch.inf)
        return torch.sigmoid(torch.softmax(delta, -1) @ x).sum(1)


def layer_norm(x):
    """Applies layer normalization without scale and bias."""
    return functional.layer_norm(x, x.shape[-1:])


def disparity(h_e, h_a):
    """Returns the disparity loss, Eq. 13-14."""
    h_e, h_a = (h - h.mean(0) for h in (h_e, h_a))
    product = torch.einsum("bmd,bme->mde", h_e, h_a)
    return product.square().sum((1, 2)).mean() / (len(h_e) - 1) ** 2


def load(network: TorchMEA, params) -> None:
    """Copies the parameters of the JAX model into the network."""
    missing = dict(network.named_parameters())
    for name, value in translated(network, params).items():
        with torch.no_grad():
            missing.pop(name).copy_(torch.tensor(value))
    # PyTorch's LSTM has two biases, which are added; the JAX model has one.
    zero = [name for name in missing if "bias_hh" in name]
    with torch.no_grad():
        for name in zero:
            missing.pop(name).zero_()
    if missing:
        raise ValueError(f"no values for {sorted(missing)}")


def translated(network, params):
    """Returns arrays in PyTorch's layout, by PyTorch's names."""
    psa, hca = params["self_attention"], params["cross_attention"]
    found = {}
    for u, m in enumerate(network.order):
        found |= encoder(m, params[f"encoders_{m}"])
        found |= mlp(f"exclusive.{m}", params[f"exclusive_{m}"])
        for i in range(network.psa):
            weights = psa[f"weigh_{i}"]
            found |= unit(f"self_attention.{i}.{m}", psa[f"layer_{i}"], u)
            found |= dense(f"look.{i}.{m}", weights[f"{m}_look"])
            found |= dense(f"score.{i}.{m}", weights[f"{m}_score"])
        for i in range(network.hca):
            found |= unit(f"mixed.{i}.{m}", hca[f"mixed_{i}"], u)
            found |= unit(f"coarse.{i}.{m}", hca[f"coarse_{i}"], u)
    for i in range(network.hca):
        for u, (t, s) in enumerate(network.pairs()):
            found |= unit(f"fine.{i}.{t}_{s}", hca[f"fine_{i}"], u)
    for branch in ("graph_exclusive", "graph_agnostic"):
        for part in ("project", "strength"):
            found |= dense(f"{branch}.{part}", params[branch][part])
    found |= mlp("shared", params["shared"])
    return found | dense("hidden", params["hidden"]) | dense("head", params["head"])


def encoder(m, tree):
    """Returns the arrays of a convolution and an LSTM, without its second bias."""
    found = {
        f"conv.{m}.weight": tree["conv"]["kernel"].transpose(2, 1, 0),
        f"conv.{m}.bias": tree["conv"]["bias"],
    }
    names = {"input_kernel": "weight_ih", "recurrent_kernel": "weight_hh"}
    for direction, end in enumerate(("_l0", "_l0_reverse")):
        for jax_name, torch_name in (names | {"bias": "bias_ih"}).items():
            found[f"lstm.{m}.{torch_name}{end}"] = tree["lstm"][jax_name][direction].T
    return found


def unit(name, tree, u):
    """Returns the arrays of attention layer `u` of a stack."""
    found = {}
    for jax_name, torch_name in ("norm", "norm"), ("feed", "feed_norm"):
        found[f"{name}.{torch_name}.weight"] = tree[f"{jax_name}_scale"][u]
        found[f"{name}.{torch_name}.bias"] = tree[f"{jax_name}_bias"][u]
    for part in ("query", "key", "value", "expand", "shrink"):
        found[f"{name}.{part}.weight"] = tree[part][u].T
    for part in ("expand", "shrink"):
        found[f"{name}.{part}.bias"] = tree[f"{part}_bias"][u]
    if "conv" in tree:
        found[f"{name}.conv.weight"] = tree["conv"][u].transpose(3, 2, 0, 1)
        found[f"{name}.conv.bias"] = tree["conv_bias"][u]
    return found


def mlp(name, tree):
    """Returns the arrays of two linear layers."""
    return dense(f"{name}.0", tree["expand"]) | dense(f"{name}.2", tree["shrink"])


def dense(name, tree):
    """Returns the arrays of a linear layer."""
    found = {f"{name}.weight": tree["kernel"].T}
    if "bias" in tree:
        found[f"{name}.bias"] = tree["bias"]
    return found
