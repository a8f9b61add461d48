"""A value that must not be printed."""

import copy
import pickle

import pytest

from gateway.keys.secret import Secret


def test_no_way_of_printing_shows_it():
    secret = Secret(b"hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret]), repr({"secret": secret})):
        assert "hunter2" not in shown
        assert "Secret(***)" in shown
    assert secret.reveal() == b"hunter2"


def test_it_is_neither_pickled_nor_copied_nor_hashed():
    for use in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            use(Secret(b"hunter2"))


def test_equal_bytes_are_equal_and_nothing_else_is():
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
