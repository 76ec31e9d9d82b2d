"""Second derivatives of single loss terms, by module, and the gradient noise scale."""

from collections.abc import Callable, Mapping
from numbers import Integral

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mmfusion_jax.analysis.gradients import (
    ALL_MODULES,
    check_modules,
    term_function,
)
from mmfusion_jax.errors import ConfigError, join_names, shown
from mmfusion_jax.losses.objective import Objective
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.types import Array, Batch, Model, PyTree

ITERATIONS = 12
"""Default number of power iterations."""


class TermCurvature(struct.PyTreeNode):
    """Curvature of K loss terms, by module; "all" is all modules together.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> one = {"all": jnp.ones(1)}
        >>> mmf.analysis.TermCurvature(one, one, {"all": jnp.ones((1, 1))}).sharpness
        {'all': Array([[1.]], dtype=float32)}

    Attributes:
        eigenvalues: Module -> eigenvalue of the largest magnitude of the Hessian of
            each term by the parameters of the module, (K), with its sign.
        residuals: Module -> |H v - eigenvalue v| for the unit vector v of the
            iteration, (K); 0 once it has converged.
        sharpness: Module -> u_i^T H_j u_i, (K K): the curvature of term j along the
            unit gradient u_i of term i; 0 for a term without gradient in the module.
    """

    eigenvalues: Mapping[str, Array]
    residuals: Mapping[str, Array]
    sharpness: Mapping[str, Array]


def hessian_product(
    function: Callable[[PyTree], Array], params: PyTree, direction: PyTree
) -> PyTree:
    """Multiplies the Hessian of a function with a vector, forward over reverse.

    It takes about as long as two gradients and no more memory than two.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> cube = lambda x: jnp.sum(x**3)
        >>> x, v = jnp.array([1.0, 2.0]), jnp.array([1.0, -1.0])
        >>> mmf.analysis.hessian_product(cube, x, v).tolist()
        [6.0, -12.0]

    Args:
        function: Maps parameters to a scalar.
        params: Where it is differentiated.
        direction: Tree like `params`.

    Returns:
        Tree like `params`. A function with `mmf.ops.reverse_gradient` has no Hessian;
        the product is then with the Jacobian of its gradient.

    Reference:
        Pearlmutter 1994.
    """
    return jax.jvp(jax.grad(function), (params,), (direction,))[1]


def term_hessian_products(
    model: Model,
    objective: Objective,
    state: TrainState,
    batch: Batch,
    direction: PyTree,
    *,
    train: bool = True,
) -> dict[str, PyTree]:
    """Multiplies the Hessian of each unweighted term with a vector.

    Their sum, weighted with `term_weights`, is the product with the Hessian of the
    training loss.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.Unimodal({"audio": mmf.encoders.Precomputed()}, 2)
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> products = mmf.analysis.term_hessian_products(
        ...     model, objective, state, batch, state.params
        ... )
        >>> jax.tree.map(jnp.shape, products["task"]) == jax.tree.map(
        ...     jnp.shape, state.params
        ... )
        True

    Args:
        model: Maps a Batch to Outputs.
        objective: Loss terms.
        state: Parameters, statistics, and the key and step that determine dropout.
        batch: Examples.
        direction: Tree like `state.params`.
        train: Run the model in training mode.

    Returns:
        Name of a term -> tree like `state.params`.
    """
    values = term_function(model, objective, state, batch, train)
    names = list(objective.terms)
    product = lambda one: hessian_product(
        lambda params: jnp.vdot(one, values(params)), state.params, direction
    )
    # One term at a time, as in `term_gradients`.
    rows = jax.lax.map(product, jnp.eye(len(names)))
    return {
        name: jax.tree.map(lambda x, i=i: x[i], rows) for i, name in enumerate(names)
    }


def top_eigenvalue(
    product: Callable[[PyTree], PyTree],
    start: PyTree,
    iterations: int = ITERATIONS,
) -> tuple[Array, PyTree]:
    """Finds the eigenvalue of the largest magnitude of a symmetric map.

    Power iteration: the error falls with the ratio of the second to the first magnitude
    to the power of 2 `iterations`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> matrix = jnp.array([[2.0, 0.0], [0.0, -3.0]])
        >>> value, vector = mmf.analysis.top_eigenvalue(
        ...     lambda v: matrix @ v, jnp.ones(2), iterations=20
        ... )
        >>> round(float(value), 3)
        -3.0

    Args:
        product: Multiplies the map with a vector, a tree of arrays.
        start: Vector that is not orthogonal to the eigenvector, such as a random one.
        iterations: Number of products, at least 1.

    Returns:
        The Rayleigh quotient of the last vector, and that vector, of length 1; 0 for a
        map that is 0, and NaN if `start` is 0 or a product is not finite.

    Raises:
        ConfigError: `iterations` is not a whole number of at least 1.
    """
    _check_iterations(iterations)

    def step(carry: tuple[PyTree, Array], _: None):
        vector = carry[0]
        image = product(vector)
        quotient = jnp.asarray(optax.tree.vdot(vector, image))
        return (_unit(image, vector), quotient), vector

    zero = jnp.zeros_like(optax.tree.vdot(start, start))
    unit = _unit(start, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), start))
    (_, quotient), vectors = jax.lax.scan(step, (unit, zero), None, length=iterations)
    return quotient, jax.tree.map(lambda x: x[-1], vectors)


def term_curvature(
    model: Model,
    objective: Objective,
    state: TrainState,
    batch: Batch,
    *,
    key: Array,
    iterations: int = ITERATIONS,
    train: bool = True,
) -> TermCurvature:
    """Computes the curvature of each unweighted term, for every module and for "all".

    A term with `mmf.ops.reverse_gradient` has no Hessian: its map is the Jacobian of
    its gradient, which need not be symmetric, so that the iteration need not converge
    to an eigenvalue; `residuals` then stay large.

    For K terms and m modules it takes K (m + 1) `iterations` Hessian-vector products.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.Unimodal({"audio": mmf.encoders.Precomputed()}, 2)
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> curvature = mmf.analysis.term_curvature(
        ...     model, objective, state, batch, key=jax.random.key(0), iterations=4
        ... )
        >>> sorted(curvature.eigenvalues), curvature.sharpness["all"].shape
        (['all', 'head_audio'], (1, 1))

    Args:
        model: Maps a Batch to Outputs.
        objective: Loss terms, one's own among them.
        state: Parameters, statistics, and the key and step that determine dropout.
        batch: Examples.
        key: Random key of the first vectors.
        iterations: Power iterations of each eigenvalue.
        train: Run the model in training mode.

    Returns:
        The curvature; NaN where a derivative is not finite.

    Raises:
        ConfigError: `iterations` is not a whole number of at least 1, or the
            objective has no terms.
    """
    _check_iterations(iterations)
    check_modules(state.params)
    if not objective.terms:
        raise ConfigError("C10", "The objective has no terms.", "a loss term")
    params, count = state.params, len(objective.terms)
    values = term_function(model, objective, state, batch, train)
    modules = [ALL_MODULES, *params]
    # A row per entry of `modules`: which modules it has.
    parts = jnp.concatenate([jnp.ones((1, len(params))), jnp.eye(len(params))])
    pull = jax.vjp(values, params)[1]

    def compute(pair: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        part, one = pair
        restrict = lambda tree: {
            name: jax.tree.map(
                lambda x, keep=keep: x * keep.astype(x.dtype), tree[name]
            )
            for name, keep in zip(params, part, strict=True)
        }
        value = lambda params: jnp.vdot(one, values(params))
        product = lambda v: restrict(hessian_product(value, params, v))
        start = restrict(optax.tree.random_like(key, params))
        quotient, vector = top_eigenvalue(product, start, iterations)
        rest = jax.tree.map(lambda a, b: a - quotient * b, product(vector), vector)
        gradient = restrict(pull(one)[0])
        along = _unit(gradient, jax.tree.map(jnp.zeros_like, gradient))
        return (
            quotient,
            optax.tree.norm(rest),
            _second_derivative(values, params, along),
        )

    pairs = jnp.repeat(parts, count, 0), jnp.tile(jnp.eye(count), (len(modules), 1))
    # One module and term at a time, so that two gradients are in memory.
    found = jax.lax.map(compute, pairs)
    by_module = lambda x: dict(
        zip(modules, x.reshape(len(modules), count, *x.shape[1:]), strict=True)
    )
    return TermCurvature(*map(by_module, found))


def gradient_noise_scale(gradients: PyTree, batch_size: int) -> dict[str, Array]:
    """Computes the batch size at which noise and gradient are equally large.

        B = tr(S) / |G|^2

    S is the covariance of the gradients of single examples and G the expected
    gradient. Much larger batches than B save no steps, much smaller ones no examples.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> gradients = {"head": jnp.array([[3.0], [1.0]])}
        >>> scale = mmf.analysis.gradient_noise_scale(gradients, batch_size=6)
        >>> float(scale["head"])
        4.0

    Args:
        gradients: Gradients of n independent batches, at least 2: a tree whose first
            level is the modules and whose leaves are (n ...).
        batch_size: Examples of each batch, at least 1.

    Returns:
        Module, or "all", -> the scale in examples, (); infinite where the noise hides
        the gradient, so that the estimate of |G|^2 is not above 0, and NaN where a
        squared norm is not finite.

    Raises:
        ConfigError: `gradients` is empty, has fewer than 2 batches or another number of
            them in some array, or `batch_size` is less than 1.

    Reference:
        McCandlish et al. 2018, App. A.1: unbiased estimates of both from batches of two
        sizes, here b and n b.
    """
    check_modules(gradients)
    counts = {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(gradients)}
    count = min(counts, default=0)
    if len(counts) != 1 or count < 2:
        raise ConfigError(
            "C10",
            f"gradients is of {join_names(sorted(counts))} batches.",
            "the same number of batches in every array, at least 2",
        )
    if batch_size < 1:
        raise ConfigError(
            "C10",
            f"batch_size={shown(batch_size)} is not a number of examples.",
            "at least 1",
        )
    means = jax.tree.map(lambda x: jnp.mean(x, axis=0), gradients)
    squares, of_means = squared_norms(gradients), squared_norms(means)
    return {
        name: noise_scale(squares[name] / count, of_means[name], count, batch_size)
        for name in squares
    }


def _check_iterations(iterations: int) -> None:
    """Raises ConfigError for a number of iterations that is not at least 1."""
    if not isinstance(iterations, Integral) or iterations < 1:
        raise ConfigError(
            "C10",
            f"iterations={shown(iterations)} is not a number of products.",
            "a whole number, at least 1",
        )


def squared_norms(tree: PyTree) -> dict[str, Array]:
    """Squared norm of every module of a tree, and of all together."""
    found = {
        name: jnp.square(jnp.asarray(optax.tree.norm(x))) for name, x in tree.items()
    }
    found[ALL_MODULES] = jnp.sum(jnp.stack([*found.values()]))
    return found


def noise_scale(
    mean_square: Array, square_of_mean: Array, count: int, batch_size: int
) -> Array:
    """Computes `gradient_noise_scale` from norms.

    Args:
        mean_square: Mean of the squared norms of the gradients of `count` batches.
        square_of_mean: Squared norm of their mean.
        count: Number of batches, at least 2.
        batch_size: Examples of each batch.
    """
    signal = (count * square_of_mean - mean_square) / (count - 1)
    noise = (mean_square - square_of_mean) * batch_size * count / (count - 1)
    scale = noise / jnp.where(signal > 0, signal, 1)
    hidden = jnp.where(jnp.isnan(signal), jnp.nan, jnp.inf)
    return jnp.where(signal > 0, scale, hidden)


def _second_derivative(
    values: Callable[[PyTree], Array], params: PyTree, direction: PyTree
) -> Array:
    """Second derivatives of all values along one direction, (K)."""
    # Forward over forward: one pass for all terms.
    slope = lambda params: jax.jvp(values, (params,), (direction,))[1]
    return jax.jvp(slope, (params,), (direction,))[1]


def _unit(tree: PyTree, otherwise: PyTree) -> PyTree:
    """Divides a tree by its norm; `otherwise` if that is 0."""
    # By the largest entry first, because the square of a large one overflows. Not
    # largest > 0, which would take NaN for 0.
    largest = optax.tree.norm(tree, ord=jnp.inf)
    tree = jax.tree.map(lambda x: x / jnp.where(largest == 0, 1, largest), tree)
    norm = optax.tree.norm(tree)
    divide = lambda x, y: jnp.where(norm == 0, y, x / jnp.where(norm == 0, 1, norm))
    return jax.tree.map(divide, tree, otherwise)
