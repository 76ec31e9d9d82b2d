"""Formats sizes of files."""


def format_size(size: int) -> str:
    """Returns a number of bytes with a unit, such as "12.3 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
