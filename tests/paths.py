"""Folders of the checkout, for tests."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def docs_files(*suffixes: str) -> list[Path]:
    """Files of the documentation, without those that its build writes."""
    written = {"_build", "generated", "jupyter_execute"}
    return [
        path
        for path in sorted((ROOT / "docs").rglob("*"))
        if path.suffix in suffixes
        and not written & set(path.relative_to(ROOT / "docs").parts)
    ]
