# %% [markdown]
# # Gradients of single loss terms
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mmfusion_jax/blob/main/notebooks/loss_gradients.ipynb)
#
# A multimodal loss is a sum of terms. Which of them trains which encoder, and are their
# gradients aligned? This notebook computes the gradient of each of the four loss terms of
# Hetero-Fusion-Net on the embedded `digits`, before and after some training.

# %%
# @title Install the library, and check the device { display-mode: "form" }
# Generated from install_cell.py, and the same in all notebooks. Packages that are
# recent enough are kept: Colab's JAX matches the plug-in of Colab's accelerator.
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

ADDRESS = "https://github.com/OWNER/mmfusion_jax"
# Virtual devices on a machine without an accelerator.
CPU_DEVICES = 1
# Extra -> a module that it installs.
MODULES = {"demo": "espeakng_loader"}
# Package -> the oldest version that the library supports.
OLDEST = {
    "jax": "0.7.2",
    "flax": "0.11.2",
    "optax": "0.2.8",
    "orbax-checkpoint": "0.12.4",
    "chex": "0.1.90",
    "numpy": "2.1.3",
}
# Accelerator -> package with a plug-in for it -> extra that installs this package.
PLUGINS = {
    "TPU": {"libtpu": "tpu"},
    "GPU": {"jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13"},
}


def read(path):
    """Returns the text of a system file; "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def find_accelerator(root=Path("/"), environment=os.environ):
    """Returns "TPU", "GPU" or "", by the devices and variables of the system."""
    names = ("TPU_ACCELERATOR_TYPE", "COLAB_TPU_1VM", "COLAB_TPU_ADDR")
    nodes = [*root.glob("dev/accel[0-9]*")]
    vendors = [read(path).strip() for path in root.glob("sys/bus/pci/devices/*/vendor")]
    if "0x1ae0" in vendors:  # Google
        nodes += root.glob("dev/vfio/[0-9]*")
    if nodes or any(environment.get(name) for name in names):
        return "TPU"
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
    return "GPU" if any(root.glob("dev/nvidia[0-9]*")) and not hidden else ""


def installed_versions():
    """Returns package -> version."""
    found = ((one.metadata["Name"], one.version) for one in metadata.distributions())
    return {re.sub("[-_.]+", "-", name).lower(): x for name, x in found if name}


def numbers(version):
    """Returns the first three numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def plugin_extra(accelerator, versions, root=Path("/")):
    """Returns the extra for an accelerator: of the plug-in found, or of the driver."""
    for plugin, extra in PLUGINS[accelerator].items():
        if plugin in versions:
            return extra
    if accelerator == "TPU":
        return "tpu"
    driver = re.search(r" (\d+)\.\d+", read(root / "proc/driver/nvidia/version"))
    return "cuda12" if driver and int(driver[1]) < 580 else "cuda13"


def choose_extras(accelerator, versions, root=Path("/")):
    """Returns the extras to install, such as "demo" or "demo,tpu"."""
    extras = [*MODULES]
    if accelerator:
        plugins = [name for name in PLUGINS[accelerator] if name in versions]
        serves = bool(plugins) and all(
            name in versions and numbers(versions[name]) >= numbers(oldest)
            for name, oldest in OLDEST.items()
        )
        if serves and accelerator == "GPU":  # libtpu has version numbers of its own
            jaxlib = versions.get("jaxlib", "")
            serves = numbers(versions[plugins[0]]) == numbers(jaxlib)
        if not serves:
            extras.append(plugin_extra(accelerator, versions, root))
    return ",".join(extras)


def replaced_in_use(before, after, modules=sys.modules):
    """Returns the packages that were replaced after this kernel had imported them."""
    packages = metadata.packages_distributions()
    used = {
        re.sub("[-_.]+", "-", package).lower()
        for module in {name.partition(".")[0] for name in [*modules]}
        for package in packages.get(module, ())
    }
    return [
        f"{name} {version} by {after.get(name, 'nothing')}"
        for name, version in sorted(before.items())
        if name in used and after.get(name) != version
    ]


def install(extras):
    """Installs the library; an error if this kernel has to be restarted."""
    before = installed_versions()
    wanted = f"mmfusion_jax[{extras}] @ git+{ADDRESS}"
    command = [sys.executable, "-m", "pip", "install", "-q", wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not install {wanted}:\n{done.stderr}")
    importlib.invalidate_caches()
    if replaced := replaced_in_use(before, installed_versions()):
        raise RuntimeError(
            f"Restart needed: pip replaced {', '.join(replaced)}, and this kernel has "
            "the old version in memory. Choose Runtime > Restart session (Jupyter: "
            "Kernel > Restart), then run all cells again."
        )


def check_device(accelerator, versions):
    """Prints the devices; an error if JAX does not use the accelerator."""
    import jax

    with warnings.catch_warnings():  # what JAX only warns of is an error below
        warnings.simplefilter("ignore")
        try:
            devices = jax.devices()
            problem = "JAX uses the CPU"
        except RuntimeError as error:
            devices = []
            problem = f"JAX does not start: {str(error).splitlines()[0]}"
    on_purpose = os.environ.get("JAX_PLATFORMS", "").startswith("cpu")
    if devices and (devices[0].platform != "cpu" or not accelerator or on_purpose):
        print(f"{len(devices)} x {devices[0].device_kind}")
        return
    kept = ("jax", "jaxlib", *PLUGINS.get(accelerator, ()))
    found = ", ".join(f"{name} {versions[name]}" for name in kept if name in versions)
    extras = [*MODULES]
    if accelerator:
        extras.append(plugin_extra(accelerator, versions))
    raise RuntimeError(
        f"{f'This machine has a {accelerator}, but ' if accelerator else ''}{problem} "
        f"(installed: {found}). Run this in a new cell:\n\n"
        f'    %pip install "mmfusion_jax[{",".join(extras)}] @ git+{ADDRESS}"\n\n'
        "then choose Runtime > Restart session (Jupyter: Kernel > Restart), and run "
        "all cells again. To use the CPU: set JAX_PLATFORMS=cpu before Python starts."
    )


if CPU_DEVICES > 1 and "host_platform_device" not in os.environ.get("XLA_FLAGS", ""):
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(CPU_DEVICES))
accelerator = find_accelerator()
if any(not importlib.util.find_spec(x) for x in ("mmfusion_jax", *MODULES.values())):
    install(choose_extras(accelerator, installed_versions()))
check_device(accelerator, installed_versions())

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import mmfusion_jax as mmf

STEPS = 200

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
# The same for any trained run of any config, with a page of plots:
# `python -m mmfusion_jax.main --config=... --workdir=... --mode=loss_gradients`.
