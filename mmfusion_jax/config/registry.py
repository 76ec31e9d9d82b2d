"""The names a config may use, read from the tables without importing what they name.

The tables hold classes that need JAX; importing them takes seconds. Their keys are
string literals, so the source alone tells them.
"""

import ast
import functools
from pathlib import Path

TABLES = {
    "model": ("models/__init__.py", "MODELS"),
    "encoder": ("encoders/__init__.py", "ENCODERS"),
    "data set": ("data/registry.py", "DATASETS"),
    "imported data set": ("data/feature_files/known_datasets.py", "KINDS"),
    "augmentation": ("data/augment/registry.py", "AUGMENTATIONS"),
    "loss": ("losses/__init__.py", "LOSSES"),
    "optimiser": ("config/optimizer.py", "OPTIMISERS"),
    "schedule": ("config/optimizer.py", "SCHEDULES"),
    "compute type": ("config/build.py", "DTYPES"),
    "score": ("metrics/classification.py", "ClassificationScores.DEFINITIONS"),
    "integration score": ("metrics/integration_score.py", "DEFINITIONS"),
    "sentiment score": ("metrics/sentiment.py", "SentimentScores.DEFINITIONS"),
    "sims score": ("metrics/sims.py", "SimsScores.DEFINITIONS"),
    "plain score": ("metrics/regression.py", "PlainScores.DEFINITIONS"),
    "flag score": ("metrics/multilabel.py", "FlagScores.DEFINITIONS"),
}
"""Kind of thing -> the file that holds its table, and the name of the table."""


@functools.cache
def choices(kind: str) -> tuple[str, ...]:
    """The names of one kind of thing, in the order of their table.

    Args:
        kind: a key of `WEIGHT_MAPPINGS`.

    Raises:
        ValueError: the file has no such table, or a key of it is not written out.
    """
    file, table = TABLES[kind]
    source = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    *owners, name = table.split(".")
    body = ast.parse(source).body
    for owner in owners:
        classes = (s for s in body if isinstance(s, ast.ClassDef))
        body = next((c.body for c in classes if c.name == owner), [])
    for statement in body:
        value = _assigned(statement, name)
        if isinstance(value, ast.Dict):
            return tuple(_literal(key, file, table) for key in value.keys)
    raise ValueError(f"{file} has no table {table} that is written out.")


def _assigned(statement: ast.stmt, name: str) -> ast.expr | None:
    """The expression that `statement` gives to `name`; None if it does not."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=target)], value=value):
            return value if target == name else None
        case ast.AnnAssign(target=ast.Name(id=target), value=value):
            return value if target == name else None
    return None


def _literal(key: ast.expr | None, file: str, table: str) -> str:
    """The string that `key` is."""
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return key.value
    raise ValueError(f"{file}: every key of {table} must be a string literal.")
