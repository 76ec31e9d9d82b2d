"""Feature files that were published with a checksum."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A published file.

    Attributes:
        name: Key of its dataset in `FEATURE_DATASETS`.
        title: Name of the file, as published.
    """

    name: str
    title: str


PUBLISHED_FILES = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": PublishedFile(
        "mosi", "MMSA MOSI/Processed/unaligned_50.pkl"
    ),
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": PublishedFile(
        "mosi", "MMSA MOSI/Processed/aligned_50.pkl"
    ),
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": PublishedFile(
        "mosei", "MMSA MOSEI/Processed/unaligned_50.pkl"
    ),
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": PublishedFile(
        "mosei", "MMSA MOSEI/Processed/aligned_50.pkl"
    ),
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": PublishedFile(
        "sims", "MMSA SIMS/Processed/unaligned_39.pkl"
    ),
}
"""SHA-256, from the README of thuiar/MMSA -> the file."""
