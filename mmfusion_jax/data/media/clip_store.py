"""A store of clips to which clips are added; what is decoded is never decoded again.

The store is a folder with parts and a small `MANIFEST.json`: contents, source, date.
Each part is a store of array_record files that is written once. A build writes one part
after the other, so that an interrupted one has lost the last part only.
"""

import dataclasses
import functools
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.data.storage.array_record_store import (
    MANIFEST,
    FeatureSpec,
    Records,
    make_folder,
    open_store,
    when_not_writable,
    write_store,
)

VERSION = 2
"""Version of the layout; 1 was one store of all clips, which is not read any more."""

PART_SECONDS = 30.0
"""Minimum time after which the next part begins."""

_PART_FRACTION = 0.1  # of the time since the start, so that there are not many parts
_PART = "part-"
_SPLIT = "clips"
_FAILED = "FAILED.json"

Entry = dict[str, Any]
"""JSON values about a clip; "id" identifies its files, segment and specification."""


@dataclasses.dataclass(frozen=True)
class PartRecords:
    """Records of chosen clips; a part is opened when a clip of it is read.

    Attributes:
        positions: Folder of the part and index in it, of every clip.
    """

    positions: Sequence[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Record `index`, 0 <= index < len."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}.")
        folder, position = self.positions[index]
        return _open_part(folder)[position]


@dataclasses.dataclass(frozen=True)
class ChosenClips:
    """Clips of a store, in the order of the jobs.

    Attributes:
        folder: Folder of the store.
        manifest: "clips", the entry of each clip; "skipped", key of each clip that
            cannot be decoded -> the reason; "spec", the specification.
        positions: Folder of the part and index in it, of every clip.
    """

    folder: Path
    manifest: Mapping[str, Any]
    positions: Sequence[tuple[Path, int]]

    def source(self, split: str = _SPLIT) -> PartRecords:
        """Returns the records of the clips."""
        del split  # as of a `Store`; there is one
        return PartRecords(self.positions)


class ClipStore:
    """A store of clips.

    Attributes:
        folder: Its folder.
    """

    def __init__(self, folder: Path, features: Mapping[str, FeatureSpec]):
        """
        Args:
            folder: Folder of the store; it is made when a clip is added.
            features: Shapes and dtypes of a record.
        """
        self.folder = folder
        self._features = features
        self._positions: dict[str, tuple[Path, int, Entry]] = {}
        self._failed: dict[str, str] = {}
        self._failed_now: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Reads which clips there are, again."""
        for part in sorted(self.folder.glob(f"{_PART}*")):
            if any(part == folder for folder, _, _ in self._positions.values()):
                continue
            for index, entry in enumerate(open_store(part).manifest["clips"]):
                self._positions[entry["id"]] = (part, index, entry)
        try:
            failed = json.loads((self.folder / _FAILED).read_text())
        except (OSError, ValueError):  # clips that failed are decoded again
            failed = {}
        self._failed = {**failed, **self._failed_now}

    def missing(self, ids: Sequence[str]) -> list[int]:
        """Returns the indices of the clips that were never decoded."""
        known = self._positions.keys() | self._failed.keys()
        return [index for index, one in enumerate(ids) if one not in known]

    def chosen(self, keys: Mapping[str, str], spec: Mapping[str, Any]) -> ChosenClips:
        """Returns clips and the reasons of those that failed.

        Args:
            keys: Key -> id of each clip.
            spec: Specification, as JSON values.
        """
        there = {k: self._positions[i] for k, i in keys.items() if i in self._positions}
        manifest = {
            # The key of a clip may differ from that of the run that decoded it.
            "clips": [{**entry, "key": k} for k, (_, _, entry) in there.items()],
            "skipped": {k: self._failed[i] for k, i in keys.items() if i not in
                        self._positions},
            "spec": dict(spec),
        }  # fmt: skip
        positions = [(folder, index) for folder, index, _ in there.values()]
        return ChosenClips(self.folder, manifest, positions)

    def add(
        self,
        results: Iterator[tuple[Entry, dict[str, Any] | None]],
        about: Mapping[str, Any],
    ) -> None:
        """Adds clips; the caller holds the lock of the store.

        Args:
            results: Entry and record of each clip; the record is None for a clip that
                failed, whose entry has "id", "reason", and "retry", True if the next
                run decodes it again.
            about: JSON values for the manifest of a new store: title and source.

        Raises:
            DataError: The disk is full or not writable.
        """
        self._write_manifest(about)
        started = time.monotonic()
        failed = dict(self._failed)
        good = self._without_failed(results, failed)
        while (first := next(good, None)) is not None:
            elapsed = time.monotonic() - started
            self._add_part(first, good, max(PART_SECONDS, _PART_FRACTION * elapsed))
        if failed != self._failed:
            self._write_json(_FAILED, failed)
        self.refresh()

    def _add_part(
        self,
        first: tuple[Entry, dict[str, Any]],
        others: Iterator[tuple[Entry, dict[str, Any]]],
        seconds: float,
    ) -> None:
        """Writes a part with the clips that are decoded in `seconds`."""
        end = time.monotonic() + seconds
        entries: list[Entry] = []

        def records() -> Iterator[dict[str, Any]]:
            part = itertools.chain([first], _until(others, lambda: _past(end)))
            for entry, record in part:
                entries.append(entry)
                yield record

        folder = self.folder / f"{_PART}{first[0]['id'][:16]}"
        write_store(folder, self._features, {_SPLIT: records()}, {"clips": entries})

    def _without_failed(
        self,
        results: Iterator[tuple[Entry, dict[str, Any] | None]],
        failed: dict[str, str],
    ) -> Iterator[tuple[Entry, dict[str, Any]]]:
        """Yields the clips that were decoded, and adds the others to `failed`."""
        for entry, record in results:
            if record is not None:
                yield entry, record
            elif entry["retry"]:
                self._failed_now[entry["id"]] = entry["reason"]
            else:
                failed[entry["id"]] = entry["reason"]

    def _write_manifest(self, about: Mapping[str, Any]) -> None:
        make_folder(self.folder)
        if not (self.folder / MANIFEST).exists():
            created = time.strftime("%Y-%m-%d %H:%M:%S")
            self._write_json(
                MANIFEST, {**about, "version": VERSION, "created": created}
            )

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes a file of the store at once."""
        with when_not_writable(self.folder):
            partial = self.folder / f".{name}.{os.getpid()}"
            partial.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
            partial.replace(self.folder / name)


@functools.cache
def _open_part(folder: Path) -> Records:
    """Returns the records of a part."""
    return open_store(folder).source(_SPLIT)


def _past(end: float) -> bool:
    return time.monotonic() > end


def _until(items: Iterator[Any], ended: Callable[[], bool]) -> Iterator[Any]:
    """Yields items until `ended`, which is tested after each."""
    while not ended() and (item := next(items, None)) is not None:
        yield item
