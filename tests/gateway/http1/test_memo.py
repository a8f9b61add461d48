"""What is remembered is bounded."""

from gateway.http1.memo import remember


def test_a_full_memo_is_cleared_before_the_next() -> None:
    memo: dict[str, int] = {}
    for number, name in enumerate("ab"):
        remember(memo, name, number, 2)
    assert memo == {"a": 0, "b": 1}
    remember(memo, "c", 2, 2)
    assert memo == {"c": 2}
