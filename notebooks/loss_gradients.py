# %% [markdown]
# # Gradients of single loss terms
#
# A multimodal loss is a sum of terms. Which of them trains which encoder, and are their
# gradients aligned? This notebook computes the gradient of each of the four loss terms of
# Hetero-Fusion-Net on the embedded `digits`, before and after some training.

# %%
# Installs the library if it is missing, as on a new Colab runtime. Colab's JAX, Flax and
# NumPy are recent enough and are not replaced, so its TPU and GPU plug-ins still match.
import importlib.util
import subprocess
import sys

ADDRESS = "https://github.com/OWNER/mmfusion_jax"
if importlib.util.find_spec("mmfusion_jax") is None:
    wanted = f"mmfusion_jax[demo] @ git+{ADDRESS}"
    command = [sys.executable, "-m", "pip", "install", "-q", wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    importlib.invalidate_caches()

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import mmfusion_jax as mmf

STEPS = 200
print(mmf.describe_devices())  # an accelerator that JAX does not use is an error

# %% [markdown]
# ## A model with four loss terms

# %%
modalities = ("audio", "image")
data = mmf.datasets.digits(modalities=modalities)
pipeline = mmf.data.Pipeline(data, batch_size=32, seed=0)
model = mmf.models.HeteroFusionNet(
    {"audio": mmf.encoders.AudioConv(32), "image": mmf.encoders.Precomputed()},
    head_size=10,
    hidden_dim=64,
    gate_hidden_dim=32,
    latent_dim=32,
    dropout=0.1,
)
objective = mmf.Objective(
    {
        "task": mmf.WeightedLoss(mmf.losses.CrossEntropy("digit")),
        "heads": mmf.WeightedLoss(mmf.losses.UnimodalLoss("digit", modalities)),
        "entropy": mmf.WeightedLoss(mmf.losses.GateEntropy(), 0.01),
        "consistency": mmf.WeightedLoss(mmf.losses.Consistency(modalities), 0.1),
    }
)
names = list(objective.terms)
optimizer = optax.adam(1e-3)
batch = next(pipeline.train(0, 1))
create = jax.jit(lambda key: mmf.create_state(model, optimizer, batch, key))
state = create(jax.random.key(0))

# %% [markdown]
# ## One term with `jax.grad`
#
# Everything is a pure function, so one term is one line.


# %%
def term(params, name):
    """Returns one loss term of the batch, as a function of the parameters."""
    variables = {"params": params, "batch_stats": state.stats}
    outputs = model.apply(variables, batch, train=False)
    return objective.value(name, outputs, batch)


gradient = jax.jit(jax.grad(term), static_argnames="name")(state.params, name="entropy")
reached = [k for k, tree in gradient.items() if optax.tree.norm(tree) > 0]
print("the entropy of the gate reaches:", ", ".join(reached))

# %% [markdown]
# ## All terms at once
#
# `term_gradients` runs the forward pass once and a backward pass for each term;
# `gradient_similarity` computes their norms and cosine similarities by module. The weighted
# sum of the gradients is the gradient of training.

# %%
@jax.jit
def compare(state, batch):
    """Returns norms and cosine similarities of the gradients of all terms."""
    return mmf.gradient_similarity(mmf.term_gradients(model, objective, state, batch))


before = compare(state, batch)
step = jax.jit(mmf.make_train_step(model, objective, optimizer, steps=STEPS))
for batch in pipeline.train(0, STEPS):
    state, metrics = step(state, batch)
after = compare(state, batch)
print(f"loss after {STEPS} steps: {metrics['loss']:.3f}")

# %%
weights = np.asarray(mmf.analysis.term_weights(objective, state.step))
modules = list(before.norms)
shared = dict(sharex=True, sharey=True)  # start and end can be compared
figure, both = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", **shared)
for axes, similarity, title in zip(both, (before, after), ("at the start", "trained")):
    for k, name in enumerate(names):
        norms = [float(weights[k] * similarity.norms[m][k]) for m in modules]
        kept = [(x, y) for y, x in enumerate(norms) if x > 0]
        axes.plot(*zip(*kept), "o", label=name)
    axes.set(xscale="log", title=title, xlabel="weighted gradient norm")
    axes.set_yticks(range(len(modules)), modules)
both[0].invert_yaxis()
both[1].legend();

# %% [markdown]
# ## Cosine similarities
#
# Blue: the gradients of two terms are aligned; red: they conflict.

# %%
figure, both = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for axes, similarity, title in zip(both, (before, after), ("at the start", "trained")):
    cosines = np.asarray(similarity.cosines["all"])
    axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1)
    for i, j in np.ndindex(cosines.shape):
        color = "white" if abs(cosines[i, j]) > 0.6 else "black"
        axes.text(j, i, f"{cosines[i, j]:+.2f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=30)
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title)
for name, row in zip(names, np.asarray(after.cosines["all"])):
    print(f"{name:12}", " ".join(f"{value:+.2f}" for value in row))

# %% [markdown]
# The same for any trained run of any config, with a page of plots:
# `python -m mmfusion_jax.main --config=... --workdir=... --mode=loss_gradients`.
