"""What waits in a session: how much may, in which order it leaves, and what is cancelled with it."""

from typing import Any

import pytest

from gateway.server.queued import MAX_WAITING, MessageQueue, Queued


class Claim:
    """A look-up or a claim in progress."""

    def __init__(self, *, claiming: bool) -> None:
        self.claiming, self.cancelled = claiming, False

    def cancel(self) -> None:
        self.cancelled = True


def begun(queue: MessageQueue, *, claiming: bool, size: int = 1) -> tuple[Queued, Claim]:
    message: Any = Queued("id", size, lambda: None)
    message.pending = claim = Claim(claiming=claiming)
    queue.append(message)
    return message, claim


def test_messages_leave_in_the_order_in_which_they_came():
    queue = MessageQueue()
    first, second = begun(queue, claiming=True)[0], begun(queue, claiming=True)[0]
    queue.receive(b"third")
    queue.receive(b"fourth")
    assert (queue.begun, queue.undecided) == (2, 2)
    assert queue.first() is first
    queue.remove_first()
    assert queue.first() is second
    queue.remove_first()
    assert (queue.first(), queue.take(), queue.take()) == (None, b"third", b"fourth")
    assert (queue.begun, queue.undecided) == (0, 0)


@pytest.mark.parametrize(("claiming", "may"), [(True, True), (False, False)])
def test_others_are_decided_behind_a_claim_and_not_behind_a_look_up(claiming, may):
    queue = MessageQueue()
    assert queue.may_decide()
    begun(queue, claiming=claiming)
    assert queue.may_decide() is may


def test_no_more_are_decided_or_read_than_may_wait():
    queue = MessageQueue()
    for _ in range(MAX_WAITING + 1):
        assert queue.may_decide()
        assert not queue.is_full(100)
        begun(queue, claiming=True, size=0)
    assert not queue.may_decide()
    assert queue.is_full(100)


def test_four_of_the_longest_messages_fill_it():
    queue = MessageQueue()
    for _ in range(3):
        queue.receive(bytes(100))
    assert not queue.is_full(100)
    begun(queue, claiming=False, size=100)
    assert queue.is_full(100)
    queue.take()
    assert not queue.is_full(100)


def test_what_is_in_progress_is_cancelled_with_it():
    queue = MessageQueue()
    claims = [begun(queue, claiming=True)[1] for _ in range(2)]
    queue.receive(b"text")
    queue.cancel()
    assert [claim.cancelled for claim in claims] == [True, True]
    assert (queue.begun, queue.undecided, queue.first()) == (0, 0, None)
