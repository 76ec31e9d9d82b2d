"""Finds the files that the rows of labels.csv name in the folder of the clips."""

import functools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mmfusion_jax.errors import closest, shown

_VIDEO = "3gp avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
_AUDIO = "aac ac3 aif aiff amr au flac m4a mp2 mp3 oga ogg opus sph w64 wav wma"
MEDIA_SUFFIXES = frozenset(f".{name}" for name in f"{_VIDEO} {_AUDIO}".split(" "))
"""Endings of the names of media files, in lower case."""


class ClipFolder:
    """The folder of the clips.

    A cell of labels.csv names a file by its path relative to the folder. It may also
    have backslashes, accents in the other Unicode form, a prefix that ends with the
    name of the folder, or be absolute.
    """

    def __init__(self, folder: Path, outside: bool = False):
        """
        Args:
            folder: Folder of the clips.
            outside: Files that are not in the folder are allowed. Links in the folder
                always are, wherever they point to.
        """
        self.folder = folder
        self._outside = outside
        # Both, as the folder itself may be a link.
        self._roots = tuple({os.path.abspath(folder), os.path.realpath(folder)})
        self._listings: dict[str, dict[str, list[str]]] = {}
        self._forms: dict[Callable[[str], str], dict[str, list[str]]] = {}

    def find(self, cell: str) -> str:
        """Returns the path of a file relative to the folder; "" if it is not there.

        Two cells that name the same path, such as "a.mp4" and "./a.mp4", give the same
        one. A file outside of the folder, if allowed, has an absolute path.
        """
        for text in dict.fromkeys((cell, cell.replace("\\", "/"))):
            for candidate in (text, *self._without_prefix(text)):
                if found := self._at(candidate):
                    return found
        return ""

    def why_not_found(self, cell: str) -> str:
        """Returns why `find` finds no file, with the most similar file if any."""
        path = os.path.join(self.folder, cell)
        if os.path.isfile(path):
            return "is outside of the folder of the clips"
        if os.path.isdir(path):
            return "is a folder"
        if similar := self._similar(cell.replace("\\", "/")):
            return f"does not exist; did you mean {shown(similar)}?"
        return "does not exist"

    @functools.cached_property
    def media(self) -> tuple[str, ...]:
        """Paths of all media files in the folder, relative to it, sorted."""
        return tuple(sorted(_media(self.folder)))

    def without_row(self, files: Iterable[str]) -> list[str]:
        """Returns the media files in the folder that are not in `files`."""
        # A row can name a file by a link in the folder.
        named = {os.path.realpath(self.folder / file) for file in files}
        return [
            path
            for path in self.media
            if os.path.realpath(self.folder / path) not in named
        ]

    def _at(self, text: str) -> str:
        """Returns the path of a file as `find` does, without another prefix."""
        path = os.path.normpath(os.path.join(self._roots[0], text))
        for root in self._roots:
            if path.startswith(root.rstrip(os.sep) + os.sep):
                relative = os.path.relpath(path, root)
                # Unlike Path.is_file, False for a name that is too long.
                if os.path.isfile(os.path.join(self.folder, relative)):
                    return relative
                return self._with_other_accents(relative)
        return path if self._outside and os.path.isfile(path) else ""

    def _without_prefix(self, text: str) -> list[str]:
        """Returns what follows the name of the folder in a path."""
        parts = text.split("/")
        name = os.path.basename(self._roots[0])
        return [
            "/".join(parts[i + 1 :])
            for i, part in enumerate(parts[:-1])
            if _composed(part) == _composed(name)
        ]

    def _with_other_accents(self, path: str) -> str:
        """Returns the file whose name differs in the Unicode form only; "" if none."""
        # The name "é" is one character or two, "e" and an accent: macOS writes the
        # second form, and most editors the first.
        if path.isascii():
            return ""
        current = ""
        for part in path.split(os.sep):
            names = self._listing(current).get(_composed(part), [])
            if part in names:
                names = [part]
            if len(names) != 1:
                return ""
            current = os.path.join(current, names[0])
        return current if os.path.isfile(os.path.join(self.folder, current)) else ""

    def _listing(self, folder: str) -> dict[str, list[str]]:
        """Returns composed name -> names in a folder."""
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                names = os.listdir(os.path.join(self.folder, folder))
            except OSError:
                names = []
            for name in names:
                listing.setdefault(_composed(name), []).append(name)
            self._listings[folder] = listing
        return self._listings[folder]

    def _similar(self, text: str) -> str:
        """Returns the media file that a path may mean; "" if none or several."""
        for form in (str.casefold, os.path.basename, _stem):
            matching = self._by_form(form).get(form(text), [])
            if len(matching) == 1:
                return matching[0]
        # Names with other numbers, such as "a_01" and "a_02", are those of other clips.
        numbers = re.findall(r"\d+", text)
        others = [path for path in self.media if re.findall(r"\d+", path) == numbers]
        return closest(text, others, cutoff=0.8) if len(others) <= 20 else ""

    def _by_form(self, form: Callable[[str], str]) -> dict[str, list[str]]:
        """Returns form of a path -> paths of the media files with it."""
        if form not in self._forms:
            forms: dict[str, list[str]] = {}
            for path in self.media:
                forms.setdefault(form(path), []).append(path)
            self._forms[form] = forms
        return self._forms[form]


def _stem(path: str) -> str:
    """Returns the name of a file without its ending, in lower case."""
    name = os.path.basename(path).casefold()
    stem, suffix = os.path.splitext(name)
    return stem if suffix in MEDIA_SUFFIXES else name


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _media(folder: Path) -> Iterator[str]:
    """Yields the media files in a folder, relative to it, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES:
                yield os.path.relpath(os.path.join(parent, name), folder)
