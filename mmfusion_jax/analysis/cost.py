"""What a model costs before it is trained: parameters, operations, shapes, memory."""

import math
from typing import Any

import jax

from mmfusion_jax.types import PyTree


def count_parameters(params: PyTree) -> dict[str, Any]:
    """The number of weights, in all and of every top-level module.

    Args:
        params: arrays or abstract arrays, by module.

    Returns:
        {"total": number, "components": {module: number}}.
    """
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    components = {name: size(tree) for name, tree in params.items()}
    return {"total": sum(components.values()), "components": components}
