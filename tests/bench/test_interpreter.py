"""tests.bench.interpreter: how an interpreter was built, by its own words."""

import platform
import sys
from pathlib import Path

import pytest

from tests.bench.interpreter import built, described


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("'--enable-optimizations' '--with-lto' '--enable-shared'", "PGO and LTO"),
        ("'--enable-optimizations'", "PGO"),
        ("'--with-lto=thin'", "LTO"),
        ("'--prefix=/usr' '--with-wheel-pkg-dir=/usr/share/python-wheels/'", "PGO and LTO, as Debian packages it"),
        ("'--prefix=/opt/python'", "built plainly, without PGO and LTO"),
        ("", "built plainly, without PGO and LTO"),
    ],
)
def test_what_sysconfig_tells_is_said_in_words(arguments, told):
    assert built(arguments) == told


def test_an_interpreter_is_named_by_its_version_and_how_it_was_built():
    assert described(Path(sys.executable)).startswith(f"Python {platform.python_version()} (")
