"""What a test does without a program that it needs: it is skipped, but never in continuous integration, which installs all of them."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def lacking(message: str) -> NoReturn:
    """Skip, or fail in continuous integration, where a skipped test would pass for one that has been run."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def tool(name: str, package: str) -> str:
    """The path of a program: beside the interpreter or on the PATH, or as given. Without it the test is :func:`lacking`.

    :param package: how to get it: ``apt-get install nginx``
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        lacking(f"{name} is not here: {package}")
    return found


def unless(missing: str) -> pytest.MarkDecorator:
    """Skip tests for want of something; in continuous integration they run all the same, and fail.

    :param missing: what it is, and how to get it; ``""``: nothing
    """
    return pytest.mark.skipif(bool(missing) and not os.environ.get("CI"), reason=missing)


def needs(*names: str) -> pytest.MarkDecorator:
    """As :func:`unless`, for programs of ``tests/system-packages``."""
    missing = [name for name in names if shutil.which(name) is None]
    return unless(f"not here: {', '.join(missing)} (tests/system-packages)" if missing else "")
