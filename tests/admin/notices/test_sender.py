"""The sender: at least once, in order for each account, through dead, slow and refusing servers; one process at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from admin import outbox
from admin.config import Mail, Webhooks
from admin.notices import delivery, sender
from admin.notices.delivery import DAY_MS, delay_ms
from admin.notices.mail import MailChannel
from admin.notices.sender import Sender
from admin.notices.webhooks import WebhookChannel, payload
from admin.outbox import Channel, Notice, Topic
from admin.stores import Stores
from gateway.errors import StoreUnavailable
from gateway.keys import postgres
from gateway.runtime import clock
from gateway.runtime.tasks import cancel, spawn
from tests.support.notices import Receiver, SmtpServer, add_account, settings_of, smtp, until
from tests.support.ports import free_port
from tests.support.stack import Database

NOW = 1_764_000_000_000


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes hundredths, in the same proportions."""
    monkeypatch.setattr(delivery, "_FIRST_DELAY_MS", 20)
    monkeypatch.setattr(sender, "_STAND_BY_S", 0.02)
    monkeypatch.setattr(sender, "_CHECK_S", 0.05)


@asynccontextmanager
async def sending(stores: Stores, database: Database, *routes: Any) -> AsyncIterator[Sender]:
    it = Sender(stores, database.admin_dsn, routes)
    task = spawn(it.run(), name="sender under test")
    try:
        yield it
    finally:
        await cancel(task)


@asynccontextmanager
async def webhooks(receiver: Receiver, **changes: Any) -> AsyncIterator[WebhookChannel]:
    async with aiohttp.ClientSession() as http:
        yield WebhookChannel(Webhooks.model_validate(settings_of(receiver) | changes), http)


def mail_to(url: str, **changes: Any) -> MailChannel:
    settings = Mail.model_validate({"smtp": url, "from": "Exchange <keys@exchange.example>", **changes})
    return MailChannel(settings, site_name="Exchange", public_url="https://keys.exchange.example")


async def tell(stores: Stores, account_id: str, *names: str, topic: Topic = Topic.KEY_DELETED) -> None:
    for name in names:
        async with stores.transaction() as connection:
            await outbox.add(connection, Notice(topic=topic, account_id=account_id, at_ms=NOW, detail={"label": name}))


async def tell_and_fail(stores: Stores, account_id: str) -> None:
    async with stores.transaction() as connection:
        await outbox.add(connection, Notice(topic=Topic.KEY_DELETED, account_id=account_id, at_ms=NOW, detail={"label": "never"}))
        raise ZeroDivisionError


NOTHING_LEFT = "SELECT NOT EXISTS (SELECT 1 FROM notice_deliveries WHERE channel = '{}')"


def labels(receiver: Receiver, account_id: str | None = None) -> list[str]:
    data = [event["data"] for _, event in receiver.events]
    return [each["label"] for each in data if account_id in (None, each["account_id"])]


async def test_a_notice_that_is_committed_is_sent_at_once_and_one_that_is_rolled_back_never(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    await add_account(owner, "alice")
    async with webhooks(receiver) as route, sending(stores, database, route):
        with pytest.raises(ZeroDivisionError):
            await tell_and_fail(stores, "alice")
        await tell(stores, "alice", "one", "two")
        await receiver.until(2)
    assert labels(receiver) == ["one", "two"]


async def test_a_receiver_that_refuses_for_a_while_loses_nothing_and_sees_the_order_and_the_same_id(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    await add_account(owner, "alice")
    receiver.status = 503
    async with webhooks(receiver) as route, sending(stores, database, route):
        await tell(stores, "alice", *"abc")
        await receiver.until_tried(3)
        assert len(set(receiver.tries)) == 1, "the later ones wait for the first"
        receiver.status = 200
        await receiver.until(3)
    assert labels(receiver) == ["a", "b", "c"]
    assert receiver.tries[0] == receiver.events[0][0]


async def test_one_accounts_refused_notice_keeps_no_other_account_waiting(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    for account in ("alice", "bob"):
        await add_account(owner, account)

    class Picky(WebhookChannel):
        async def _deliver(self, notice: Any, now_ms: int) -> None:
            if notice.account_id == "alice":
                raise delivery.NotDelivered("answered 400")
            await super()._deliver(notice, now_ms)

    async with aiohttp.ClientSession() as http:
        route = Picky(Webhooks.model_validate(settings_of(receiver)), http)
        async with sending(stores, database, route):
            await tell(stores, "alice", "x", "y")
            await tell(stores, "bob", "1", "2")
            await receiver.until(2)
    assert labels(receiver) == ["1", "2"]


async def test_a_notice_that_a_defect_keeps_back_holds_up_no_other_account_and_its_own_for_a_while_alone(
    stores: Stores, database: Database, owner: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery.Defective, "give_up_after_ms", 30)
    monkeypatch.setattr(delivery, "_FIRST_DELAY_MS", 60_000)  # the last attempt is made when the time is over
    for account in ("alice", "bob"):
        await add_account(owner, account)

    def content(notice: Any) -> dict[str, object]:
        if notice.detail["label"] == "odd":
            raise RecursionError
        return payload(notice)

    async with aiohttp.ClientSession() as http:
        route = WebhookChannel(Webhooks.model_validate(settings_of(receiver)), http, content=content)
        async with sending(stores, database, route):
            await tell(stores, "alice", "odd", "x")
            await tell(stores, "bob", "1", "2")
            await receiver.until(3)
    assert sorted(labels(receiver)) == ["1", "2", "x"]
    assert labels(receiver, "bob") == ["1", "2"]


async def test_a_topic_of_a_later_version_is_left_to_it_and_holds_nothing_up(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    for account in ("alice", "bob"):
        await add_account(owner, account)
    await owner.execute("INSERT INTO notices (id, account_id, topic, at_ms, detail) VALUES ('evt_1', 'alice', 'key.of_tomorrow', 0, '{}')")
    await owner.execute("INSERT INTO notice_deliveries (seq, channel, account_id) SELECT seq, 'webhook', account_id FROM notices")
    async with webhooks(receiver) as route, sending(stores, database, route):
        await tell(stores, "alice", "x")
        await tell(stores, "bob", "1")
        await receiver.until(2)
        await until(owner, "SELECT count(*) = 1 FROM notice_deliveries WHERE channel = 'webhook'")
    assert sorted(labels(receiver)) == ["1", "x"]


async def test_a_dead_mail_server_loses_nothing(stores: Stores, database: Database, owner: Any, mail_server: SmtpServer) -> None:
    await add_account(owner, "alice", email="alice@mail.example")
    port = free_port()
    async with sending(stores, database, mail_to(f"smtp://127.0.0.1:{port}")):
        await tell(stores, "alice", "one", "two")
        await until(owner, "SELECT EXISTS (SELECT 1 FROM notice_deliveries WHERE attempts > 1)")
        controller = smtp(mail_server.box, port)
        try:
            mails = await mail_server.box.until(2)
        finally:
            controller.stop(no_assert=True)
    assert ["one" in str(mail.get_body()) for mail in mails] == [True, False]


@pytest.mark.parametrize("answer", ["451 later", "550 never", "421 closing"])
async def test_a_refusing_mail_server_loses_nothing(
    stores: Stores, database: Database, owner: Any, mail_server: SmtpServer, answer: str
) -> None:
    await add_account(owner, "alice", email="alice@mail.example")
    mail_server.box.answer = answer
    async with sending(stores, database, mail_to(mail_server.url)):
        await tell(stores, "alice", "one", "two")
        await mail_server.box.until_tried(3)
        assert mail_server.box.envelopes == []
        mail_server.box.answer = None
        first, second = await mail_server.box.until(2)
    assert ("one" in str(first.get_body()), "two" in str(second.get_body())) == (True, True)


async def test_a_server_that_hangs_holds_no_connection_to_the_database(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    await add_account(owner, "alice")
    receiver.pause = asyncio.Event()
    async with webhooks(receiver) as route, sending(stores, database, route):
        await tell(stores, "alice", "one")
        await receiver.until_tried(1)
        # What tidies up is soon done; what sends must not hold one.
        while stores.pool.get_size() != stores.pool.get_idle_size():  # noqa: ASYNC110  # a pool has no event for this
            await asyncio.sleep(0.01)
        await tell(stores, "alice", "two")
        receiver.pause.set()
        await receiver.until(2)
    assert labels(receiver) == ["one", "two"]


async def test_a_slow_answer_counts_as_none_and_the_notice_is_sent_again_under_its_id(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    await add_account(owner, "alice")
    receiver.pause = asyncio.Event()
    async with webhooks(receiver, timeout_ms=50) as route, sending(stores, database, route):
        await tell(stores, "alice", "one")
        await receiver.until_tried(2)
        pause, receiver.pause = receiver.pause, None
        await receiver.until(1)
        pause.set()
    assert set(receiver.tries) == {receiver.events[0][0]}


async def test_a_sender_killed_between_sending_and_noting_sends_again_under_the_same_id(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    await add_account(owner, "alice")
    receiver.pause = asyncio.Event()
    async with webhooks(receiver) as route:
        async with sending(stores, database, route):
            await tell(stores, "alice", "one")
            await receiver.until_tried(1)  # it has the notice, and the sender does not know: here it dies
        receiver.pause.set()
        async with sending(stores, database, route):
            await receiver.until_tried(2)
            await until(owner, NOTHING_LEFT.format("webhook"))
    assert len(receiver.tries) == 2
    assert len(set(receiver.tries)) == 1


async def test_of_two_senders_one_sends_and_the_other_follows_when_its_connection_is_gone(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    await add_account(owner, "alice")
    lead = """
        SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database
         WHERE locktype = 'advisory' AND granted AND datname = current_database()
    """
    async with webhooks(receiver) as route, sending(stores, database, route), sending(stores, database, route):
        await tell(stores, "alice", *"abcdef")
        await receiver.until(6)
        await until(owner, NOTHING_LEFT.format("webhook"))  # what is sent and not yet noted would be sent again
        pids = [row["pid"] for row in await owner.fetch(lead)]
        assert len(pids) == 1
        await owner.execute("SELECT pg_terminate_backend($1)", pids[0])
        await tell(stores, "alice", *"ghi")
        await receiver.until(9)
    assert labels(receiver) == list("abcdefghi")


async def test_an_outage_of_postgres_is_logged_once_however_long_it_is(
    stores: Stores, database: Database, owner: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_account(owner, "alice")
    connect, tries = postgres.connect, iter(["refused"] * 9 + ["starting up"] * 9 + [""] + ["refused"] * 9)

    async def unreachable(dsn: str) -> Any:
        if reason := next(tries, ""):
            raise StoreUnavailable(reason)
        return await connect(dsn)

    monkeypatch.setattr(postgres, "connect", unreachable)
    lost = asyncio.Event()

    async def lead(*_arguments: Any) -> None:
        lost.set()  # as another process has the lock

    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(Sender, "_lead_if_free", lead)
        async with webhooks(receiver) as route, sending(stores, database, route):
            await lost.wait()
            lost.clear()
            await lost.wait()
    assert [entry["reason"] for entry in logs if entry["event"] == "notices_wait"] == ["refused", "starting up", "refused"]


async def test_after_a_day_of_failures_a_notice_is_given_up_and_the_next_one_goes(
    stores: Stores, database: Database, owner: Any, receiver: Receiver
) -> None:
    await add_account(owner, "alice")
    await tell(stores, "alice", "old", "new")
    await owner.execute(
        "UPDATE notice_deliveries SET attempts = 30, first_tried_ms = $1 WHERE seq = (SELECT min(seq) FROM notices)",
        clock.now_ms() - DAY_MS,
    )
    receiver.status = 500
    async with webhooks(receiver) as route, sending(stores, database, route):
        await receiver.until_tried(2)  # the old one for the last time, then the new one
        receiver.status = 200
        await receiver.until(1)
    assert labels(receiver) == ["new"]


async def test_a_retry_that_was_postponed_before_the_clock_was_set_back_is_due(stores: Stores, owner: Any) -> None:
    await add_account(owner, "alice")
    await tell(stores, "alice", "old", "new")

    async def due(*, postponed_ms: int) -> int:
        update = "UPDATE notice_deliveries SET attempts = 1, due_ms = $1 WHERE seq = (SELECT min(seq) FROM notices)"
        await owner.execute(update, NOW + postponed_ms)
        async with stores.transaction() as connection:
            assert (await outbox.next_due_ms(connection, Channel.WEBHOOK, now_ms=NOW) is None) == (postponed_ms > 2 * 3_600_000)
            return len(await outbox.due(connection, Channel.WEBHOOK, now_ms=NOW, limit=10))

    assert await due(postponed_ms=3_600_000) == 0
    assert await due(postponed_ms=365 * DAY_MS) == 2


async def test_an_account_without_a_mail_address_is_passed_over(
    stores: Stores, database: Database, owner: Any, mail_server: SmtpServer
) -> None:
    await add_account(owner, "nobody")
    await add_account(owner, "evil", email="a@mail.example, b@mail.example")
    await add_account(owner, "alice", email="alice@mail.example")
    async with sending(stores, database, mail_to(mail_server.url)):
        for account in ("nobody", "evil", "alice"):
            await tell(stores, account, "one")
        await mail_server.box.until(1)
        await until(owner, NOTHING_LEFT.format("mail"))
    assert [envelope.rcpt_tos for envelope in mail_server.box.envelopes] == [["alice@mail.example"]]


class Record:
    """A way out that takes everything."""

    channel = Channel.WEBHOOK

    def __init__(self, expected: int) -> None:
        self.taken: list[tuple[str, int]] = []
        self.whole = asyncio.Event()
        self._expected = expected

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        async def deliver(notice: Any, _now_ms: int) -> None:
            self.taken.append((notice.account_id, int(notice.detail["label"])))
            if len(self.taken) == self._expected:
                self.whole.set()
            await asyncio.sleep(0)

        yield deliver


async def test_ten_thousand_pending_notices_drain_in_order(stores: Stores, database: Database, owner: Any, record_property: Any) -> None:
    for number in range(20):
        await add_account(owner, f"account-{number}")
    await owner.execute("""
        INSERT INTO notices (id, account_id, topic, at_ms, detail)
        SELECT 'evt_' || n, 'account-' || (CASE WHEN n % 2 = 0 THEN 0 ELSE n % 20 END), 'key.deleted', 0,
               json_build_object('label', n::text)
          FROM generate_series(1, 10000) AS n ORDER BY n
    """)
    await owner.execute("INSERT INTO notice_deliveries (seq, channel, account_id) SELECT seq, 'webhook', account_id FROM notices")
    started = clock.stopwatch()
    route = Record(10_000)
    async with sending(stores, database, route):
        await route.whole.wait()
        await until(owner, NOTHING_LEFT.format("webhook"))
    record_property("measured", f"10 000 notices drained in {clock.stopwatch() - started:.1f} s")
    assert len(set(route.taken)) == 10_000
    for number in range(20):
        numbers = [label for account, label in route.taken if account == f"account-{number}"]
        assert numbers == sorted(numbers)


async def test_what_waits_for_a_channel_that_is_not_in_use_is_forgotten_after_a_day(stores: Stores, owner: Any) -> None:
    await add_account(owner, "alice")
    await tell(stores, "alice", "old")
    async with stores.transaction() as connection:
        await outbox.tidy(connection, channels=[Channel.MAIL], undelivered_before_ms=NOW, before_ms=NOW)
        assert await connection.fetchval("SELECT count(*) FROM notice_deliveries") == 3
        await outbox.tidy(connection, channels=[Channel.MAIL], undelivered_before_ms=NOW + 1, before_ms=NOW + 1)
        assert [row["channel"] for row in await connection.fetch("SELECT channel FROM notice_deliveries")] == ["mail"]
        await outbox.tidy(connection, channels=[], undelivered_before_ms=NOW + 1, before_ms=NOW + 1)
        assert await connection.fetchval("SELECT count(*) FROM notices") == 0


def test_delays_grow_up_to_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [delay_ms(attempts) for attempts in (1, 2, 3, 12, 1000)] == [2_000, 4_000, 8_000, 3_600_000, 3_600_000]
