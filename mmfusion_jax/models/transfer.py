"""Starting a fused model from encoders that were trained alone."""

import jax

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.types import PyTree


def copy_submodules(
    params: PyTree,
    stats: PyTree,
    source_params: PyTree,
    source_stats: PyTree,
    prefix: str = "encoders_",
) -> tuple[PyTree, PyTree]:
    """Copies the sub-trees of a donor whose name starts with `prefix`.

    CFN-SR's released recipe trains both encoders alone, drops their heads and goes on
    with the fused model: `prefix="encoders_"`, once per donor. Late fusion of trained
    networks takes their heads too: once more with `prefix="head_"`.

    Args:
        params: parameters of the model that receives.
        stats: its batch statistics; {} if there are none.
        source_params: parameters of the model that gives.
        source_stats: its batch statistics.
        prefix: how the names of the sub-trees start.

    Returns:
        New parameters and new statistics; whatever the donor does not hold stays.

    Raises:
        ConfigError: if the donor has no such sub-tree, or one that does not fit.
    """
    names = [name for name in source_params if name.startswith(prefix)]
    if not names:
        raise ConfigError(
            "C23",
            f"the donor has nothing called {prefix!r}..: it has "
            f"{sorted(source_params)}.",
        )
    for name in names:
        _check(name, params, source_params)
        _check(name, stats, source_stats)
    return (
        {**params, **{name: source_params[name] for name in names}},
        {
            **stats,
            **{name: source_stats[name] for name in names if name in source_stats},
        },
    )


def _check(name: str, tree: PyTree, donor: PyTree) -> None:
    """Raises ConfigError if the sub-trees `name` differ in names or shapes."""
    have, given = _shapes(tree.get(name, {})), _shapes(donor.get(name, {}))
    for path in sorted(have.keys() | given.keys()):
        if have.get(path) != given.get(path):
            raise ConfigError(
                "C23",
                f"{name}{path} is {given.get(path, 'absent')} in the donor and "
                f"{have.get(path, 'absent')} in the model.",
                "train the donor with the same encoder",
            )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
