"""Initializes a model with submodules of trained models."""

import jax

from mmfusion_jax.errors import ConfigError, join_names, shorten, shown
from mmfusion_jax.types import PyTree


def copy_submodules(
    params: PyTree,
    stats: PyTree,
    source_params: PyTree,
    source_stats: PyTree,
    prefix: str = "encoders_",
) -> tuple[PyTree, PyTree]:
    """Copies the submodules of a source model whose name starts with `prefix`.

    CFN-SR's released recipe trains both encoders separately, drops their heads and
    trains the fused model: `prefix="encoders_"`, once per source model. Late fusion of
    trained networks also copies their heads: again with `prefix="head_"`.

    Args:
        params: Parameters of the target model.
        stats: Batch statistics of the target model; {} if there are none.
        source_params: Parameters of the source model.
        source_stats: Batch statistics of the source model.
        prefix: Prefix of the names of the submodules.

    Returns:
        New parameters and new statistics; submodules that the source model does not
        have are unchanged.

    Raises:
        ConfigError: The source model has no such submodule, or one that does not match.

    Reference:
        CFN-SR, released code.
    """
    names = [name for name in source_params if name.startswith(prefix)]
    if not names:
        raise ConfigError(
            "C23",
            f"source model has no submodule {shown(prefix)}..; it has "
            f"{join_names(sorted(source_params))}.",
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


def _check(name: str, target: PyTree, source: PyTree) -> None:
    """Raises ConfigError if the submodules `name` differ in names or shapes."""
    have, given = _shapes(target.get(name, {})), _shapes(source.get(name, {}))
    for path in sorted(have.keys() | given.keys()):
        if have.get(path) != given.get(path):
            raise ConfigError(
                "C23",
                f"{shorten(name)}{path} is {shown(given.get(path, 'missing'))} "
                f"in the source model and {shown(have.get(path, 'missing'))} "
                "in the target model.",
                "train the source model with the same encoder",
            )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
