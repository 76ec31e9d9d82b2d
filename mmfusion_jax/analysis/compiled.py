"""What a step costs on chips that it is compiled for, without running it.

The step is compiled by `jax.jit(...).trace(...).lower(...).compile()` from shapes; all
figures are of the program of one chip.
"""

import collections
import dataclasses
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mmfusion_jax.analysis.cost import Product, find_products
from mmfusion_jax.errors import message_lines, shown_name
from mmfusion_jax.training.topology import Chip, Topology

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
"""Operations of XLA that move data between chips."""

# A TPU computes such a product in one or three bfloat16 passes, NVIDIA in TF32, at half
# of the bfloat16 rate.
FLOAT32_COST = {
    "tpu": {"default": 1, "high": 3},
    "cuda": {"default": 2, "high": 2},
}
"""Platform -> precision below "highest" -> time of a float32 product relative to a
bfloat16 one."""

WHICH = "|".join(sorted(COLLECTIVES, key=len, reverse=True))
# An asynchronous collective is two operations, -start and -done, of which one counts.
COLLECTIVE = re.compile(rf" = (.+?) ({WHICH})(-start)?\((?:.*?channel_id=(\d+))?")
ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,<=]*)\]")
CALLBACK = re.compile(
    r'custom_call_target="[^"]*callback[^"]*"|stablehlo\.custom_call @\w*callback'
    r"|is_host_transfer=true|\b(?:infeed|outfeed)\("
)
FLOAT64 = re.compile(r"\bf64\[|x?f64>")
DYNAMIC = re.compile(r"\[[\d,]*<=|tensor<(?:\d+x)*\?")
ALIAS = re.compile(r"\{[\d, ]*\}: \(\d+|tf\.aliasing_output|jax\.buffer_donor")
LOOP = re.compile(r" while\(|stablehlo\.while")
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclasses.dataclass(frozen=True)
class ChipMemory:
    """Memory of a program on one chip, in bytes.

    Attributes:
        arguments: State, batch.
        outputs: New state and metrics.
        aliased: Part of the outputs that uses the memory of donated arguments.
        temporary: Intermediate arrays.
        peak: All of them at once.
        available: HBM of the chip; None if it is not known.
    """

    arguments: int
    outputs: int
    aliased: int
    temporary: int
    peak: int
    available: int | None


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Lower bounds of the time of a step, in seconds.

    Attributes:
        compute: All products at the peak rate of the chip.
        memory: All bytes accessed at the bandwidth of the HBM; None if not known.
        interconnect: All collectives at the bandwidth between chips.
        bound: The largest: "compute", "memory" or "interconnect"; None if that of the
            memory is not known.
    """

    compute: float
    memory: float | None
    interconnect: float
    bound: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """Cost of a compiled step, of one chip.

    Attributes:
        compile_s: Time of tracing, lowering and compiling, in seconds.
        fits: Whether the memory suffices; None if the step was lowered only.
        problem: Why it does not fit, as the compiler reports it; "" if it does.
        memory: Memory; None if it does not fit or was lowered only.
        flops: Floating-point operations of all products, 2 per multiply-accumulate, as
            the equations define them; those of loops in every iteration. For a TPU,
            grouped convolutions as merged for it, with their zeros.
        bytes_accessed: Bytes that are read from and written to memory, the body of a
            loop counted once; None if lowered only.
        products: Such as "float32 highest" -> number of products.
        collectives: Kind -> number; see `find_collectives`.
        collective_bytes: Size of their results.
        loops: Number of loops.
        float64, dynamic_shapes, host_callbacks: Number of such operations.
        donated: Number of outputs in the memory of an argument.
        roofline: Bounds of the time; None if the chip is not known.
    """

    compile_s: float
    fits: bool | None
    problem: str
    memory: ChipMemory | None
    flops: float
    bytes_accessed: float | None
    products: Mapping[str, int]
    collectives: Mapping[str, int]
    collective_bytes: int
    loops: int
    float64: int
    dynamic_shapes: int
    host_callbacks: int
    donated: int
    roofline: Roofline | None


def compile_step(step: Any, args: Sequence[Any], topology: Topology) -> CompiledStep:
    """Compiles a step for chips that need not be there, and returns its cost.

    Args:
        step: Result of `jax.jit` with shardings over the devices of the topology.
        args: Abstract arrays.
        topology: The chips. Without devices the step is lowered, not compiled.
    """
    begun = time.perf_counter()
    traced = step.trace(*args)
    lowered = traced.lower(lowering_platforms=(topology.platform,))
    compiled, problem = None, ""
    if topology.devices:
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if OUT_OF_MEMORY not in str(error):
                raise
            problem = " ".join(message_lines(error))
    took = time.perf_counter() - begun
    text = (compiled or lowered).as_text()
    products = find_products(traced.jaxpr.jaxpr, topology.platform)
    moved = find_collectives(text, topology.platform)
    memory = _memory(compiled, topology.chip)
    accessed = _bytes_accessed(compiled)
    return CompiledStep(
        compile_s=took,
        fits=_fits(compiled, problem, memory),
        problem=problem,
        memory=memory,
        flops=2 * sum(p.macs for p in products) / topology.count,
        bytes_accessed=accessed,
        products=_count(
            f"{shown_name(p.dtype)} {shown_name(p.precision)}" for p in products
        ),
        collectives=_count(kind for kind, _ in moved),
        collective_bytes=sum(size for _, size in moved),
        loops=len(LOOP.findall(text)),
        float64=len(FLOAT64.findall(text)),
        dynamic_shapes=len(DYNAMIC.findall(text)),
        host_callbacks=len(CALLBACK.findall(text)),
        donated=len(ALIAS.findall(_aliases(text))),
        roofline=topology.chip
        and roofline(topology.chip, topology.count, products, accessed, moved),
    )


def find_collectives(text: str, platform: str = "") -> list[tuple[str, int]]:
    """Returns the kind and the size in bytes of every collective of an HLO text.

    The compiler of a TPU can write a collective as several pieces, between which it
    computes; they have one channel, and count once. Other compilers can give one
    channel to all collectives, and then each counts.

    Args:
        text: Of the compiled program of one device.
        platform: JAX's name of the platform that it is compiled for.
    """
    found: dict[Any, tuple[str, int]] = {}
    for i, (shape, kind, start, channel) in enumerate(COLLECTIVE.findall(text)):
        # The result of a -start is a tuple of operands and results, but that of an
        # all-reduce has the results only.
        size = _size(shape, with_operands=bool(start) and kind != "all-reduce")
        piece = platform == "tpu" and channel
        found.setdefault((kind, channel) if piece else i, (kind, size))
    return [*found.values()]


def roofline(
    chip: Chip,
    count: int,
    products: Sequence[Product],
    bytes_accessed: float | None,
    collectives: Sequence[tuple[str, int]],
) -> Roofline:
    """Returns lower bounds of the time of a step.

    float32 products take longer than bfloat16 ones, see `FLOAT32_COST`. In a ring of n
    chips each one sends (n - 1) / n of the result of an all-gather, and twice as much
    of that of an all-reduce.

    Args:
        chip: One of the chips.
        count: Their number, n.
        products: All products of the step, of all chips.
        bytes_accessed: Of one chip.
        collectives: Kind and size in bytes, of one chip.
    """
    sent = sum(size * (2 if kind == "all-reduce" else 1) for kind, size in collectives)
    times = {
        "compute": sum(2 * p.macs / _rate(chip, p) for p in products) / count,
        "memory": (bytes_accessed or 0.0) / chip.bandwidth,
        # Half of the published bandwidth: a chip sends in one direction.
        "interconnect": sent * (count - 1) / count / (chip.interconnect / 2),
    }
    if bytes_accessed is None:
        return Roofline(times["compute"], None, times["interconnect"], None)
    return Roofline(**times, bound=max(times, key=lambda name: times[name]))


def _rate(chip: Chip, product: Product) -> float:
    """Returns the peak rate of a product, in operations per second."""
    if product.dtype != "float32":
        return chip.flops
    if product.precision == "highest":
        return chip.float32_flops
    return chip.flops / FLOAT32_COST[chip.platform].get(product.precision, 1)


def _count(names: Any) -> dict[str, int]:
    """Returns name -> how often it occurs, sorted."""
    return dict(sorted(collections.Counter(names).items()))


def _fits(compiled: Any, problem: str, memory: ChipMemory | None) -> bool | None:
    """Returns whether the memory of the chip suffices; None if that is not known."""
    if problem:
        return False
    if compiled is None or memory is None or memory.available is None:
        return None
    return memory.peak <= memory.available


def _memory(compiled: Any, chip: Chip | None) -> ChipMemory | None:
    """Returns the memory of a compiled program; None for one that is not."""
    if compiled is None:
        return None
    found = compiled.memory_analysis()
    arguments, outputs, temporary, aliased = (
        getattr(found, f"{name}_size_in_bytes")
        for name in ("argument", "output", "temp", "alias")
    )
    peak = arguments + outputs + temporary - aliased
    available = int(chip.memory) if chip else None
    return ChipMemory(arguments, outputs, aliased, temporary, peak, available)


def _bytes_accessed(compiled: Any) -> float | None:
    """Returns the bytes that a compiled program accesses; None for one that is not."""
    if compiled is None:
        return None
    found = compiled.cost_analysis()
    # JAX before 0.5 returned a list with one entry for each program.
    found = found[0] if isinstance(found, list) else found
    return found.get("bytes accessed")


def _aliases(text: str) -> str:
    """Returns the part of a program with the outputs that use donated memory."""
    head = text.split("\n", 1)[0]
    if "HloModule" not in head:
        return text
    return head.partition("input_output_alias=")[2].partition("entry_computation")[0]


def _size(shape: str, *, with_operands: bool) -> int:
    """Returns the size in bytes of the result of a collective."""
    sizes = [_bytes(*match) for match in ARRAY.findall(shape)]
    return max(sizes, default=0) if with_operands else sum(sizes)


def _bytes(dtype: str, dims: str) -> int:
    """Returns the size in bytes of an array such as f32[8,128]."""
    bits = re.search(r"\d+", dtype)
    count = math.prod(int(d.lstrip("<=")) for d in dims.split(",") if d)
    return math.ceil(count * (int(bits[0]) if bits else 8) / 8)
