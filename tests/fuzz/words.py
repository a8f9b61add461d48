"""The dictionary of a search: what it puts into its inputs, in the form of libFuzzer's ``-dict``."""

from collections.abc import Iterable
from pathlib import Path


def write(file: Path, words: Iterable[bytes]) -> None:
    """A word a line, every byte escaped; longer ones than libFuzzer takes are left out."""
    escaped = ("".join(map(r"\x{:02x}".format, word)) for word in words if len(word) < 100)
    file.write_text("".join(f'"{word}"\n' for word in escaped))
