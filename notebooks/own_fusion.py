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
