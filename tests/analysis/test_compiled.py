"""What is read from a compiled program, against figures worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from precision import double

from mmfusion_jax.analysis.compiled import (
    compile_step,
    find_collectives,
    roofline,
)
from mmfusion_jax.analysis.cost import Product, count_macs, find_products
from mmfusion_jax.errors import ConfigError, MissingDependencyError
from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.training import topology
from mmfusion_jax.training.topology import CHIPS, TOPOLOGIES, Topology, find_topology

HLO = """\
HloModule jit_f, input_output_alias={ {0}: (0, {}, may-alias) }, entry_computation_l...
  %a = (f32[8,4]{1,0:T(8,128)}, f32[]{:T(128)}) all-reduce(%x, %y), channel_id=1
  %b = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%x), dimensions={0}
  %c = f32[8,4]{1,0} all-gather-done(%b)
  %d = bf16[16]{0} all-to-all(%x), dimensions={0}
  %e = (pred[3]{0}, pred[3]{0}, u32[], u32[]) collective-permute-start(%x)
  %f = f32[8,4]{1,0} add(%all-reduce.1, %c), metadata={op_name="all-reduce(x)"}
  %g = (f32[8]{0}, f32[4]{0}) all-reduce-start(%x, %y), to_apply=%add
"""


def test_collectives_of_a_text():
    assert find_collectives(HLO) == [
        ("all-reduce", 8 * 4 * 4 + 4),
        ("all-gather", 8 * 4 * 4),
        ("all-to-all", 16 * 2),
        ("collective-permute", 4),
        ("all-reduce", 48),
    ]


PIECES = """\
  %a = f32[8,4]{1,0} all-gather(%x), channel_id=15, dimensions={0}
  %b = f32[8,4]{1,0:S(1)} all-gather(%y), channel_id=15, dimensions={0}
  %c = f32[8]{0} all-reduce(%y), channel_id=15, to_apply=%add
  %d = f32[8]{0} all-reduce(%z), channel_id=16, to_apply=%add
  %e = f32[8]{0} all-reduce(%z), to_apply=%add
  %f = f32[8]{0} all-reduce(%z), to_apply=%add
"""


def test_a_tpu_has_one_channel_for_the_pieces_of_a_collective():
    gather, total = ("all-gather", 4 * 8 * 4), ("all-reduce", 4 * 8)
    assert find_collectives(PIECES, "tpu") == [gather, *[total] * 4]
    assert find_collectives(PIECES, "cpu") == [gather] * 2 + [total] * 4


def test_roofline_by_hand():
    products = [
        Product("a", 3 * 10**12, "bfloat16", "highest"),
        Product("b", 10**12, "float32", "high"),
    ]
    moved = [("all-reduce", 10**9), ("all-gather", 2 * 10**9)]
    bounds = roofline(CHIPS["v5e"], 4, products, 819e9, moved)
    assert bounds.compute == pytest.approx(2 * (3 + 3) / 4 / 197)
    assert bounds.memory == pytest.approx(1)
    assert bounds.interconnect == pytest.approx(4 * 0.75 / 200)
    assert bounds.bound == "memory"
    alone = roofline(CHIPS["v5e"], 1, products, 1.0, moved)
    assert (alone.interconnect, alone.bound) == (0, "compute")


def test_no_bound_is_named_where_the_bytes_are_not_known():
    products = [Product("a", 10**12, "float32", "highest")]
    bounds = roofline(CHIPS["h100"], 1, products, None, [])
    assert (bounds.memory, bounds.bound) == (None, None)
    assert bounds.compute > 0


@pytest.mark.parametrize(
    ("chip", "precision", "teraflops"),
    [
        ("h100", "highest", 67),
        ("h100", "default", 989 / 2),
        ("a100", "highest", 19.5),
        ("a100", "high", 312 / 2),
        ("v5e", "highest", 197 / 6),
        ("v5e", "high", 197 / 3),
        ("v5e", "default", 197),
    ],
)
def test_the_peak_rate_of_float32_products(chip, precision, teraflops):
    products = [Product("a", 10**12, "float32", precision)]
    bounds = roofline(CHIPS[chip], 1, products, 1.0, [])
    assert bounds.compute == pytest.approx(2 / teraflops)


def test_products_of_a_platform():
    def f(x):
        cpu = lambda x: x @ x @ x
        default = lambda x: jnp.matmul(x, x, precision=("high", "highest"))
        y = jax.lax.platform_dependent(x, cpu=cpu, default=default)
        return jax.lax.scan(lambda y, _: (y @ y, None), y, None, length=5)[0]

    jaxpr = jax.make_jaxpr(f)(jnp.ones((2, 2))).jaxpr
    described = lambda platform: [
        (p.macs, p.dtype, p.precision) for p in find_products(jaxpr, platform)
    ]
    loop = (5 * 8, "float32", "default")
    assert described("tpu") == described("") == [(8, "float32", "high"), loop]
    assert described("cpu") == [(8, "float32", "default")] * 2 + [loop]


def mesh_of(count: int) -> jax.sharding.Mesh:
    return jax.make_mesh(
        (count,), ("data",), (AxisType.Auto,), devices=jax.devices()[:count]
    )


def step(state, batch):
    return state + batch.T @ batch, jnp.sum(batch)


def cost(function, *shapes, count=2):
    """The cost of a function of a replicated and of split arrays, on CPU devices."""
    mesh = mesh_of(count)
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    compiled = jax.jit(
        function,
        in_shardings=(whole, *[split] * (len(shapes) - 1)),
        out_shardings=whole,
        donate_argnums=0,
    )
    dtype = jax.dtypes.canonicalize_dtype(float)
    shapes = [jax.ShapeDtypeStruct(s, dtype) for s in shapes]
    devices = tuple(jax.devices()[:count])
    return compile_step(compiled, shapes, Topology("two", "cpu", None, devices))


def test_cost_of_a_step_on_two_devices():
    found = cost(step, (8, 8), (16, 8))
    assert found.products == {"float32 default": 1}
    assert found.flops == 2 * 16 * 8 * 8 / 2
    assert found.memory and found.memory.available is None
    assert found.memory.arguments == 4 * (8 * 8 + 16 * 8 // 2)
    assert found.memory.aliased == 4 * 8 * 8
    assert found.donated == 1
    assert sum(found.collectives.values()) in (1, 2)
    assert found.collectives.keys() == {"all-reduce"}
    assert found.collective_bytes == 4 * (8 * 8 + 1)
    assert (found.float64, found.dynamic_shapes, found.host_callbacks) == (0, 0, 0)
    assert (found.fits, found.problem, found.roofline) == (None, "", None)
    assert cost(step, (8, 8), (16, 8), count=1).collectives == {}


def test_every_device_of_a_shard_map_counts():
    whole, split = P(), P("data")
    function = jax.shard_map(
        lambda w, x: jax.lax.psum(x.T @ x @ w, "data"),
        mesh=mesh_of(2),
        in_specs=(whole, split),
        out_specs=whole,
    )
    found = cost(function, (8, 8), (16, 8))
    assert found.flops == 2 * (8 * 8 * 8 + 8 * 8 * 8)


@pytest.mark.versions
@pytest.mark.parametrize("check_vma", [True, False])
def test_a_backward_pass_that_adds_over_devices_counts(check_vma):
    """Forward x w, backward dy w^T and x^T dy: three of 16 x 8 x 8."""
    product = with_backward(
        jnp.matmul,
        lambda arguments, _, dy: (
            dy @ arguments[1].T,
            jax.lax.psum(arguments[0].T @ dy, "data"),
        ),
    )
    loss = lambda w, x: jax.lax.psum(jnp.sum(product(x, w) ** 2), "data")
    gradients = jax.shard_map(
        jax.grad(loss, (0, 1)),
        mesh=mesh_of(2),
        in_specs=(P(), P("data")),
        out_specs=(P("data"), P("data")),
        check_vma=check_vma,
    )
    assert count_macs(gradients, jnp.ones((8, 8)), jnp.ones((16, 8))).total == (
        3 * 16 * 8 * 8
    )


def test_what_a_step_must_not_have_is_found():
    def calls(state, batch):
        shape = jax.ShapeDtypeStruct((), np.float32)
        return state + jax.pure_callback(np.float32, shape, batch[0, 0]), batch

    assert cost(calls, (8, 8), (16, 8)).host_callbacks == 1
    with double():
        assert cost(step, (8, 8), (16, 8)).float64 > 0


def test_a_step_that_is_only_lowered():
    alone = Topology("cuda", "cuda", CHIPS["a100"], ())
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, 8), (16, 8))]
    found = compile_step(jax.jit(step, donate_argnums=0), shapes, alone)
    assert (found.memory, found.fits, found.bytes_accessed) == (None, None, None)
    assert (found.flops, found.donated) == (2 * 16 * 8 * 8, 1)
    assert found.roofline and found.roofline.compute > 0
    with double():
        wide = [jax.ShapeDtypeStruct(s.shape, float) for s in shapes]
        assert compile_step(jax.jit(step), wide, alone).float64 > 0


def test_a_program_that_does_not_fit():
    class Large:
        trace = lower = lambda self, *_, **__: self
        jaxpr = jax.make_jaxpr(step)(jnp.ones((8, 8)), jnp.ones((16, 8)))
        as_text = lambda self: ""

        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 19.39G of 15.75G")

    devices = Topology("v5e:1x1", "tpu", CHIPS["v5e"], (None,))
    found = compile_step(Large(), (), devices)
    assert (found.fits, found.memory) == (False, None)
    assert "19.39G" in found.problem


def test_an_unknown_topology_names_the_known_ones():
    with pytest.raises(ConfigError, match="v9:2x2.*not a known") as error:
        find_topology("v9:2x2")
    assert all(name in str(error.value) for name in TOPOLOGIES)


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("INVALID_ARGUMENT: not divisible", ConfigError, "does not know it"),
        ("JAX TPU support not installed", MissingDependencyError, r"mmfusion_jax\[tpu"),
    ],
)
def test_a_compiler_that_cannot(monkeypatch, message, kind, words):
    from jax.experimental import topologies

    def fail(**_):
        raise RuntimeError(message)

    monkeypatch.setattr(topologies, "get_topology_desc", fail)
    with pytest.raises(kind, match=f"(?s){words}") as error:
        find_topology("v5e:2x2")
    if kind is MissingDependencyError:
        assert topology.pinned_libtpu() in str(error.value)
        assert "libtpu==" in str(error.value)


def test_chips_are_described_once():
    kinds = {name.partition(":")[0] for name in TOPOLOGIES} - {"cuda"}
    assert kinds == {*CHIPS}
    for chip in CHIPS.values():
        assert all(x for x in dataclasses.astuple(chip))
