"""Runs the program of a model card where neither the package nor Flax can be imported.

python subprocess_reload.py CARD INPUTS.npz OUTPUTS.npz, in the exported folder

INPUTS has arrays "inputs/<modality>" and "masks/<modality>"; OUTPUTS will have
"prediction" and "weights/<modality>".
"""

import re
import sys
from pathlib import Path

BLOCKED = ("mmfusion_jax", "flax", "orbax", "optax", "ml_collections", "msgspec")


class Blocker:
    """Fails every import of what the program must not need."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")


def main(card: str, source: str, target: str) -> None:
    sys.meta_path.insert(0, Blocker())
    (code,) = re.findall(r"```python\n(.*?)```", Path(card).read_text(), re.DOTALL)
    program: dict = {}
    exec(code, program)
    import numpy as np

    arrays = np.load(source)
    of = lambda part: {
        name.removeprefix(part): arrays[name]
        for name in arrays.files
        if name.startswith(part)
    }
    found = program["predict"](of("inputs/"), of("masks/"))
    weights = {f"weights/{name}": x for name, x in found["weights"].items()}
    np.savez(target, prediction=found["prediction"], **weights)
    assert not [name for name in sys.modules if name.partition(".")[0] in BLOCKED]


if __name__ == "__main__":
    main(*sys.argv[1:])
