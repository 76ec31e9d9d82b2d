"""Parts of the papers in JAX and in PyTorch: forward pass and gradients.

The mean square of the output is differentiated by the weights: CFN-SR's 3D ResNeXt-50,
a transformer layer of BERT's size, and MCL-MCF's LSTM in both directions. float32
permits TF32 in both libraries, as JAX's default does; bfloat16 is autocast in PyTorch,
and the dtype of the activations in JAX.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measured_rows import NotHere, is_out_of_memory
from paper_steps import random_variables
from step_times import seconds_per_call

from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.layers.transformer import TransformerLayer
from mmfusion_jax.ops.lstm_scan import LSTMWeights, lstm
from mmfusion_jax.types import Tokens

SHAPES = {
    "resnext3d": ((4, 30, 224, 224, 3), (1, 4, 16, 16, 3)),
    "transformer": ((32, 512, 768), (2, 5, 24)),
    "lstm": ((128, 500, 64), (2, 5, 4)),
}
"""Part -> shape of its input, and the one for --tiny; channels last."""


def measure_part(name: str, dtype: str, tiny: bool) -> dict[str, Any]:
    """Returns, by library, the seconds of forward pass and gradients of a part.

    Args:
        name: A key of `SHAPES`.
        dtype: "float32" or "bfloat16".
        tiny: Tiny shapes, and `torch.compile` without its compiler.

    Raises:
        NotHere: PyTorch is not installed, does not support the device of JAX, or cannot
            compute this part on it.
    """
    try:
        import torch
    except ImportError:
        raise NotHere("PyTorch is not installed") from None
    platform = jax.default_backend()
    if platform not in ("cpu", "gpu") or (
        platform == "gpu" and not torch.cuda.is_available()
    ):
        raise NotHere(f"this PyTorch does not support the device of JAX, {platform}")
    if (platform, name, dtype) == ("cpu", "resnext3d", "bfloat16"):
        # Also without JAX in the process, PyTorch 2.13 then ends it in two of three
        # cases with "double free or corruption" or "free(): invalid next size".
        raise NotHere(
            "PyTorch's bfloat16 gradients of 3D convolutions corrupt memory on a CPU"
        )
    shape = SHAPES[name][tiny]
    rng = np.random.default_rng(0)
    x = np.resize(rng.standard_normal(99_991, np.float32), shape)
    found = {"JAX": _in_jax(name, dtype, x, tiny)}
    compilers = {"PyTorch": None, "torch.compile": "eager" if tiny else "inductor"}
    for title, backend in compilers.items():
        try:
            found[title] = _in_torch(torch, name, dtype, x, tiny, backend)
        except Exception as error:
            text = "out of memory" if is_out_of_memory(error) else str(error)[:200]
            found[title] = {"error": text}
    return found


def _in_jax(name: str, dtype: str, x: np.ndarray, tiny: bool) -> dict[str, float]:
    """Returns the seconds of the part in JAX."""
    forward, weights = _JAX_PARTS[name](jnp.dtype(dtype), x, tiny)
    loss = lambda w, x: jnp.mean(jnp.square(forward(w, x).astype(jnp.float32)))
    weights, x = jax.tree.map(jnp.asarray, (weights, x))
    begun = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(loss)).lower(weights, x).compile()
    figures = {"compile": time.perf_counter() - begun}
    return figures | seconds_per_call(lambda: compiled(weights, x))


def _in_torch(
    torch: Any, name: str, dtype: str, x: np.ndarray, tiny: bool, backend: str | None
) -> dict[str, float]:
    """Returns the seconds of the part in PyTorch; `backend` is that of its compiler."""
    gpu = jax.default_backend() == "gpu"
    device = "cuda" if gpu else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    module = _TORCH_PARTS[name](torch, x.shape, tiny).to(device)
    given = torch.tensor(x, device=device)
    call = module if backend is None else torch.compile(module, backend=backend)
    narrow = lambda: (
        torch.autocast(device, torch.bfloat16)
        if dtype == "bfloat16"
        else contextlib.nullcontext()
    )

    def step() -> None:
        module.zero_grad(set_to_none=True)
        with narrow():
            y = call(given)
        y.float().square().mean().backward()

    wait = lambda _: torch.cuda.synchronize() if gpu else None
    begun = time.perf_counter()
    wait(step())
    first = time.perf_counter() - begun
    figures = seconds_per_call(step, wait)
    return figures | {"compile": max(first - figures["seconds"], 0.0)}


def _resnext(dtype: Any, x: np.ndarray, tiny: bool) -> tuple[Callable, Any]:
    sizes = dict(blocks=(1,), base_channels=32) if tiny else {}
    encoder = ResNeXt3D(dtype=dtype, **sizes)
    mask = np.ones(x.shape[:2], bool)

    def forward(weights: Any, x: jax.Array) -> jax.Array:
        tokens, _ = encoder.apply(weights, x, mask, train=True, mutable=["batch_stats"])
        return tokens.values

    init = lambda: encoder.init(jax.random.key(0), x, mask, train=False)
    return forward, random_variables(jax.eval_shape(init))


def _transformer(dtype: Any, x: np.ndarray, tiny: bool) -> tuple[Callable, Any]:
    heads, width = _heads(x.shape), x.shape[-1]
    layer = TransformerLayer(
        heads, mlp_dim=4 * width, dtype=dtype, pre_norm=False, activation=jax.nn.gelu
    )
    mask = jnp.ones(x.shape[:2], bool)
    init = lambda: layer.init(
        jax.random.key(0), Tokens(jnp.asarray(x), mask), train=False
    )

    def forward(weights: Any, x: jax.Array) -> jax.Array:
        return layer.apply(weights, Tokens(x, mask), train=True).values

    return forward, random_variables(jax.eval_shape(init))


def _lstm(dtype: Any, x: np.ndarray, tiny: bool) -> tuple[Callable, Any]:
    width = x.shape[-1]
    shapes = LSTMWeights((2, width, 4 * width), (2, width, 4 * width), (2, 4 * width))
    rng = np.random.default_rng(0)
    weights = [0.1 * rng.standard_normal(s, np.float32) for s in shapes]
    mask = jnp.ones(x.shape[1::-1], bool)

    def forward(weights: Any, x: jax.Array) -> jax.Array:
        weights = LSTMWeights(*(w.astype(dtype) for w in weights))
        return lstm(x.swapaxes(0, 1).astype(dtype), mask, weights).all_steps

    return forward, weights


_JAX_PARTS = {"resnext3d": _resnext, "transformer": _transformer, "lstm": _lstm}


def _heads(shape: tuple[int, ...]) -> int:
    """Returns the number of heads of BERT, or fewer for a narrow input."""
    return 12 if shape[-1] >= 768 else 2


def _torch_resnext(torch: Any, shape: tuple[int, ...], tiny: bool) -> Any:
    from torch_resnext3d import TorchResNeXt3D

    class ChannelsLast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            network = TorchResNeXt3D(**(dict(blocks=(1,), width=32) if tiny else {}))
            self.network = network.to(memory_format=torch.channels_last_3d)

        def forward(self, x: Any) -> Any:
            # A view of the channels-last clips: (b c t h w).
            return self.network(x.movedim(-1, 1))

    return ChannelsLast()


def _torch_transformer(torch: Any, shape: tuple[int, ...], tiny: bool) -> Any:
    width = shape[-1]
    return torch.nn.TransformerEncoderLayer(
        *(width, _heads(shape), 4 * width, 0.0),
        activation=torch.nn.functional.gelu,
        batch_first=True,
    )


def _torch_lstm(torch: Any, shape: tuple[int, ...], tiny: bool) -> Any:
    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.LSTM(
                shape[-1], shape[-1], batch_first=True, bidirectional=True
            )

        def forward(self, x: Any) -> Any:
            return self.layer(x)[0]

    return States()


_TORCH_PARTS = {
    "resnext3d": _torch_resnext,
    "transformer": _torch_transformer,
    "lstm": _torch_lstm,
}
