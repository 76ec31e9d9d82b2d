"""The steps of all papers, compiled for four chips of a TPU v5e that are not there."""

import jax
import pytest
import small_configs

from mmfusion_jax.analysis.compiled import CompiledStep, compile_step
from mmfusion_jax.analysis.cost import find_products
from mmfusion_jax.commands import compile_for
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.errors import MissingDependencyError
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.topology import find_topology

COLLECTIVES = {
    "cfn_sr": (9, 4),
    "mea": (10, 4),
    "hetero_fusion_net": (5, 5),
    "mcl_mcf": (11, 4),
    "of_cmaer_cat": (5, 4),
}
"""Paper -> most collectives of its training step and of its evaluation step, in its
small config, as counted with jax 0.10.2 and libtpu 0.0.42.1; other versions combine
them differently."""

BATCH = 16


@pytest.fixture(scope="module")
def topology():
    """Four chips; skips where libtpu, which contains the compiler, is not installed."""
    try:
        found = find_topology("v5e:2x2")
    except MissingDependencyError as error:
        pytest.skip(f"no TPU compiler: {error}")
    # As users compile; tests/conftest.py leaves XLA's optimizations out.
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    # The cache cannot load a program for chips that are not there.
    jax.config.update("jax_enable_compilation_cache", False)
    yield found
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_disable_most_optimizations", before)


def compiled(spec: ExperimentSpec, data: Dataset, topology) -> dict[str, CompiledStep]:
    """The costs of both steps, and the number of arrays of the state."""
    executor = Executor(topology=topology.devices)
    parts = build.build_components(spec, data, 1, executor)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    calls = compile_for.step_calls(parts, batch)
    return {name: compile_step(*call, topology) for name, call in calls.items()}


def arrays_of_state(spec: ExperimentSpec, data: Dataset) -> int:
    """The number of arrays of a training state that a step replaces."""
    parts = build.build_components(spec, data, 1)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    init = lambda: create_state(parts.model, parts.tx, batch, jax.random.key(0))
    return len(jax.tree.leaves(jax.eval_shape(init)))


def check(paper: str, spec: ExperimentSpec, data: Dataset, topology) -> None:
    """Asserts what must hold for the steps of a paper."""
    found = compiled(spec, data, topology)
    for name, step in found.items():
        assert step.fits, (name, step.problem, step.memory)
        assert (step.float64, step.dynamic_shapes, step.host_callbacks) == (0, 0, 0)
        assert step.products.keys() == {f"float32 {spec.matmul_precision}"}
        assert step.roofline and step.bytes_accessed
    moved = {name: step.collectives for name, step in found.items()}
    for name, most in zip(("train", "eval"), COLLECTIVES[paper], strict=True):
        assert sum(moved[name].values()) <= most, moved
    # All but the key, which stays as it is.
    assert found["train"].donated >= arrays_of_state(spec, data) - 1


@pytest.mark.ci
@pytest.mark.parametrize("paper", COLLECTIVES)
def test_a_small_config(paper, topology):
    changes = {"data.batch_size": BATCH}
    spec = resolve(small_configs.small(paper, **changes))
    check(paper, spec, small_configs.digits(count=BATCH), topology)


@pytest.mark.slow
@pytest.mark.parametrize("paper", COLLECTIVES)
def test_the_config_of_digits(paper, topology):
    config = load_config(f"{paper}:digits").copy_and_resolve_references().unlock()
    config.data.batch_size = BATCH
    spec = resolve(config)
    check(paper, spec, build_data.describe_dataset(spec, 0), topology)


def test_products_are_the_same_however_devices_share_them():
    """The backward pass of batch norm adds over the devices."""
    assert macs("shard_map") == macs("jit") > 0


def macs(parallel: str) -> int:
    """MACs of the training step of CFN-SR on two devices of this process."""
    spec = resolve(small_configs.small("cfn_sr", **{"data.batch_size": BATCH}))
    data = small_configs.digits(count=BATCH)
    executor = Executor(parallel, topology=tuple(jax.devices()[:2]))
    parts = build.build_components(spec, data, 1, executor)
    batch = build_data.build_pipeline(spec, data, 0).dummy_batch()
    step, arguments = compile_for.step_calls(parts, batch)["train"]
    products = find_products(step.trace(*arguments).jaxpr.jaxpr, "cuda")
    return sum(product.macs for product in products)


@pytest.mark.ci
def test_one_chip_and_bfloat16(topology):
    del topology
    changes = {"data.batch_size": BATCH, "compute_dtype": "bfloat16"}
    spec = resolve(small_configs.small("hetero_fusion_net", **changes))
    alone = find_topology("v5e:1x1")
    found = compiled(spec, small_configs.digits(count=BATCH), alone)
    for step in found.values():
        assert not step.collectives
        assert step.products.keys() == {"bfloat16 highest", "float32 highest"}
