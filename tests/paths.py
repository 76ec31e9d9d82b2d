"""Folders of the checkout, for tests."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
