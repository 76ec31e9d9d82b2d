# %% [markdown]
# # Your own fusion block
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mmfusion_jax/blob/main/notebooks/own_fusion.ipynb)
#
# Writes a fusion block, lets the testing kit find its mistake, and compares the
# corrected block with concatenation and late fusion: same data, same encoders, same
# training, three seeds each. On the embedded `digits`, so no number here is comparable
# with any paper.

# %%
# build.py puts install_cell.py here.

# %%
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import mmfusion_jax as mmf

EPOCHS = 6
SEEDS = 3


def command(words):
    """Prints the output of a command of the library: mmfusion-jax WORDS in a shell."""
    line = [sys.executable, "-m", "mmfusion_jax", *shlex.split(words)]
    # A process of its own, on the CPU: a TPU serves one process, which is this one.
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    print(done.stdout + done.stderr)


# %% [markdown]
# ## The block
#
# A fusion block maps streams to streams: name -> tokens, with values (b n d) and a mask
# (b n). This one adds to every token a summary of the other modalities, with a gate
# computed from both.
#
#     s_m = mean of the tokens of modality m
#     o_m = sum of s_k over the other modalities k
#     g_m = sigmoid(W_m [s_m; o_m] + b_m)
#     y_m = x_m + g_m * o_m


# %%
class GatedExchange(nn.Module):
    """Adds a gated summary of the other modalities to the tokens of each."""

    def summary(self, tokens):
        return tokens.values.mean(axis=1)

    @nn.compact
    def __call__(self, streams, *, train):
        summaries = {m: self.summary(tokens) for m, tokens in streams.items()}
        fused = {}
        for m, tokens in streams.items():
            own = summaries[m]
            other = sum(s for k, s in summaries.items() if k != m)
            both = jnp.concatenate([own, other], axis=-1)
            gate = jax.nn.sigmoid(nn.Dense(own.shape[-1], name=f"gate_{m}")(both))
            values = tokens.values + (gate * other)[:, None]
            fused[m] = tokens.replace(values=values)
        return fused


# %% [markdown]
# ## The testing kit
#
# `check_fusion` makes its own inputs and tries what every block must do. Of a property
# that does not hold it shows the smallest counterexample.

# %%
shapes = {"audio": (5, 8), "image": (1, 8)}  # tokens and width of an example
try:
    mmf.testing.check_fusion(GatedExchange(), shapes)
except AssertionError as error:
    print(error)


# %% [markdown]
# The mean also counts padding and missing modalities, where values can be anything. With
# the mean of the valid tokens all properties hold.


# %%
class MaskedExchange(GatedExchange):
    """The same with the mean of the valid tokens."""

    def summary(self, tokens):
        return mmf.layers.pooling.mean(tokens)


print(mmf.testing.check_fusion(MaskedExchange(), shapes))

# %% [markdown]
# ## Comparison
#
# One config for all: `fused` is the encoders with any fusion block, and a config names
# a part of your own by its import path. For a class in this notebook that is
# `__main__:Name`, for one in a file `my_package.my_module:Name`.

# %%
config = mmf.base_config()
config.data.update(dict(name="digits", label="digit", batch_size=32))
config.model = dict(
    name="fused",
    encoders=dict(
        audio=dict(name="audio_cnn"),
        image=dict(name="precomputed"),  # the pixels
    ),
    fusion=dict(name="__main__:MaskedExchange"),
)
config.losses = dict(task=dict(name="cross_entropy", weight=1.0))
config.train.epochs = EPOCHS
config.seeds = SEEDS

MODELS = {
    "own_block": {},
    "concat": {"model.fusion.name": "identity"},
    "late_fusion": {"model.name": "late_fusion"},
}
folder = Path(tempfile.mkdtemp())  # empty, so that nothing of an older block is in it
results = {}
for name, overrides in MODELS.items():
    overrides = overrides | {"train.parallel_seeds": "on"}
    results[name] = mmf.train(config, folder / name, overrides)

# %%
figure, axes = plt.subplots(figsize=(6, 2.2), layout="constrained")
scores = [[run.test.scores["accuracy"] for run in one.runs] for one in results.values()]
rows = np.arange(len(results))
axes.plot(scores, rows, "o", color="tab:blue", alpha=0.6)
axes.plot(np.mean(scores, axis=1), rows, "|", color="black", markersize=24)
axes.set(xlabel="test accuracy: seeds, and their mean", ylim=(len(rows) - 0.5, -0.5))
axes.set_yticks(rows, list(results));

# %% [markdown]
# `compare` tests the differences on the same test examples. A block that helps has an
# interval of the difference to concatenation without 0, on the same side with more seeds.

# %%
runs = " ".join(str(folder / name) for name in results)
command(f"compare {runs} --output={folder / 'comparison.html'}")

# %% [markdown]
# The next steps, with the files of a block in a package of your own, are in
# `CONTRIBUTING.md`.
