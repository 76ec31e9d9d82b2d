# %% [markdown]
# # Gradients of single loss terms
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mmfusion_jax/blob/main/notebooks/loss_gradients.ipynb)
#
# A multimodal loss is a sum of terms. Which of them trains which encoder, and are their
# gradients aligned? This notebook computes the gradient of each of the four loss terms of
# Hetero-Fusion-Net on the embedded `digits`, before and after some training.

# %%
# build.py puts install_cell.py here.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import mmfusion_jax as mmf

STEPS = 200
ITERATIONS = 20  # of the power iteration, for the curvature

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
batch = next(pipeline.train(0, 1))  # the gradients below are those of this batch
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
for other in pipeline.train(0, STEPS):
    state, metrics = step(state, other)
after = compare(state, batch)
print(f"loss after {STEPS} steps: {metrics['loss']:.3f}")
moments = {"at the start": before, f"after {STEPS} steps": after}

# %% [markdown]
# ## Norms
#
# A norm times the weight of its term is the strength with which the term changes a module.
# A term without a gradient in a module has no marker there.

# %%
weights = np.asarray(mmf.analysis.term_weights(objective, state.step))
modules = [name for name in before.norms if name != "all"] + ["all"]
figure, both = plt.subplots(
    1, 2, figsize=(10, 4.5), layout="constrained", sharex=True, sharey=True
)
for axes, (title, similarity) in zip(both, moments.items()):
    norms = weights * np.array([similarity.norms[m] for m in modules])
    for name, values, marker in zip(names, norms.T, "osD^"):
        values = np.where(values > 0, values, np.nan)
        axes.plot(values, range(len(modules)), marker, label=name, alpha=0.8)
    axes.set(xscale="log", title=title, xlabel="weighted gradient norm")
    axes.grid(axis="y", alpha=0.4)
    axes.axhline(len(modules) - 1.5, color="black", linewidth=0.8)
both[0].set_yticks(range(len(modules)), modules)
both[0].invert_yaxis()
figure.legend(*both[0].get_legend_handles_labels(), loc="outside right");

# %% [markdown]
# ## Cosine similarities
#
# Of the gradients in all modules together. Blue: the gradients of two terms are aligned;
# red: they conflict.

# %%
figure, both = plt.subplots(
    1, 2, figsize=(8, 3.8), layout="constrained", sharex=True, sharey=True
)
for axes, (title, similarity) in zip(both, moments.items()):
    cosines = np.asarray(similarity.cosines["all"])
    image = axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1)
    for i, j in np.ndindex(cosines.shape):
        red, green, blue, _ = image.cmap(image.norm(cosines[i, j]))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        color = "white" if dark else "black"
        axes.text(j, i, f"{cosines[i, j]:+.2f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=30)
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title)
figure.colorbar(image, ax=both, shrink=0.8, label="cosine similarity")
print(f"after {STEPS} steps:")
for name, row in zip(names, np.asarray(after.cosines["all"])):
    print(f"{name:12}", " ".join(f"{value:+.2f}" for value in row))

# %% [markdown]
# ## Curvature
#
# A gradient is a function too, and every part of the library can be differentiated again.
# `hessian_product` multiplies the Hessian of a term with a vector, without the Hessian,
# and `top_eigenvalue` finds its eigenvalue of the largest magnitude from such products. A
# step along the gradient of a term lowers the term as long as the learning rate is below
# 2 / curvature along it.


# %%
@jax.jit
def measure(params, index):
    """Returns the largest eigenvalue of a term, and the curvature along its gradient."""

    def value(params):
        return jax.numpy.stack([term(params, name) for name in names])[index]

    def product(direction):
        return mmf.analysis.hessian_product(value, params, direction)

    start = optax.tree.random_like(jax.random.key(1), params)
    eigenvalue, _ = mmf.analysis.top_eigenvalue(product, start, ITERATIONS)
    gradient = jax.grad(value)(params)
    squared = optax.tree.norm(gradient, squared=True)
    return eigenvalue, optax.tree.vdot(gradient, product(gradient)) / squared


curvature = np.array([measure(state.params, i) for i in range(len(names))])
print(f"{'':12} largest eigenvalue, curvature along the gradient")
for name, (eigenvalue, along) in zip(names, curvature):
    print(f"{name:12} {eigenvalue:+18.2f} {along:+28.2f}")

# %% [markdown]
# The same for any trained run of any config, with a page of plots:
# `python -m mmfusion_jax.main --config=... --workdir=... --mode=loss_gradients --curvature`.
