"""Bytes as a client might send them, guided by what they reach in the gateway's code. Run by ``run``."""

import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz import words

with atheris.instrument_imports(include=["gateway", "http_sf"]):
    from tests.support.in_memory import WORDS, InMemory, seeds, stop_clock

PLANE = InMemory(stop_clock)


def one(data: bytes) -> None:
    """One input: whole, and cut in two, which must come to the same.

    :raises AssertionError: it does not, or it is answered as nothing may be
    """
    whole = PLANE.talk([data])
    middle = len(data) // 2
    halves = PLANE.talk([data[:middle], data[middle:]])
    assert whole.in_kind() == halves.in_kind(), (whole, halves)


def main(argument: str) -> None:
    """:param argument: seconds to search, or a file with one input"""
    folder = Path(tempfile.mkdtemp(prefix="gerbang-fuzz-"))
    options = [sys.argv[0], f"-artifact_prefix={folder}/", "-max_len=8192", "-timeout=5"]
    if argument.isdigit():
        dictionary = folder / "words"
        words.write(dictionary, WORDS)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / str(number)).write_bytes(seed)
        options += [f"-max_total_time={argument}", f"-dict={dictionary}", "-print_final_stats=1", str(corpus)]
    else:
        options.append(argument)
    atheris.Setup(options, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1])
