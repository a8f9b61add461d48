"""What is known of the installed code."""

import os

from gateway.process.build import code_stamp


def test_code_that_was_replaced_is_other_code(tmp_path):
    (tmp_path / "room").mkdir()
    module = tmp_path / "room" / "module.py"
    module.write_text("one = 1\n")
    before = code_stamp(tmp_path)
    assert before
    assert code_stamp(tmp_path) == before

    os.utime(module, ns=(0, 0))
    assert code_stamp(tmp_path) != before, "as long as before"
    changed = code_stamp(tmp_path)
    (tmp_path / "room" / "fast.so").write_bytes(b"")
    assert code_stamp(tmp_path) > changed
    (tmp_path / "room" / "notes.txt").write_text("no code")
    (tmp_path / "room" / "module.pyc").write_text("written when it is first imported")
    assert len(code_stamp(tmp_path)) == 2
