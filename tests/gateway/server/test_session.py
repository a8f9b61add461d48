"""Sessions end to end: what arrives at the service, what the client is told, in which order, and how it ends."""

import asyncio
import json
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.admission.principal import Principal
from gateway.admission.sessions import base
from gateway.admission.sessions.json_text import scan
from gateway.config.values import Rate
from gateway.errors import RateLimited
from gateway.keys.cache import ABSENT
from gateway.keys.record import Scope
from gateway.runtime import clock
from gateway.server import fair_scheduler
from gateway.server.queued import MAX_WAITING
from gateway.server.session import MAX_HELD, MAX_KEYS
from gateway.websocket.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from tests.support import inside
from tests.support.keys import a_record
from tests.support.session import METHODS, Client, binance, conversation, handshake, log_in, session_gate

RECORD = a_record()
READER = a_record(scopes=frozenset({Scope.READ}))
DIALECTS = sorted(METHODS)
PUBLIC = {"mobee": b'{"method":"subscribe","events":["MK"]}', "binance": b'{"id":7,"method":"time"}'}
PRIVATE = {"mobee": b'{"method":"subscribe","events":["BL"]}', "binance": b'{"id":7,"method":"account.status"}'}
TRADE = {"mobee": b'{"method":"order"}', "binance": b'{"id":7,"method":"order.place"}'}
UNLISTED = {"mobee": b'{"method":"subscribe","events":["MK","XX"]}', "binance": b'{"id":7,"method":"x"}'}


@pytest.fixture(params=DIALECTS)
def dialect(request):
    return request.param


# -- what arrives


async def test_extensions_are_taken_out_of_the_handshake_both_ways(dialect):
    async with conversation() as talk:
        raw = await talk.served.client()
        raw.send(handshake(dialect))
        status, headers = await raw.head()
        assert status == 101
        assert "sec-websocket-extensions" not in dict(headers)
        assert dict(headers)["sec-websocket-accept"]
        assert talk.upstream.requests[0].values(b"sec-websocket-extensions") == []
        assert talk.upstream.requests[0].values(b"sec-websocket-version") == [b"13"]


async def test_a_public_message_arrives_with_the_address_alone(dialect):
    async with conversation() as talk:
        client, service = await talk.open(dialect)
        client.send(PUBLIC[dialect])
        opcode, payload = await service.frame()
        assert opcode == TEXT
        assert payload.startswith(b'{"gateway":{"client_ip":"127.0.0.1","request_id":"')
        assert payload.endswith(b'"},' + PUBLIC[dialect][1:])
        assert talk.served.metrics.admitted


async def test_after_a_log_in_messages_arrive_with_whose_they_are(dialect):
    async with conversation(RECORD) as talk:
        client, service = await talk.open(dialect)
        client.send(log_in(RECORD, dialect), PRIVATE[dialect], PUBLIC[dialect])
        first, second, third = [await service.message() for _ in range(3)]
        assert (first["method"], next(iter(first))) == ("login" if dialect == "mobee" else "session.logon", "gateway")
        for message in (first, second):
            own = message.pop("gateway")
            assert list(own) == ["assertion", "account_id", "key_id", "scopes", "client_ip", "request_id"]
            assert (own["assertion"], own["account_id"], own["key_id"], own["scopes"], own["client_ip"]) == (
                f"proof.{RECORD.key_id}.spot", "alice", RECORD.key_id, ["read", "trade"], "127.0.0.1",
            )  # fmt: skip
            assert own["request_id"]
        assert second == json.loads(PRIVATE[dialect])
        assert list(third["gateway"]) == ["client_ip", "request_id"]
        secret = RECORD.secret.reveal().decode()
        assert secret not in json.dumps([first, second])


async def test_values_arrive_byte_for_byte():
    text = '{"id":"\\u00e9€","method":"order.place","params":{"price":0.00000100,"quantity":1e3,"symbol":"\\u5e01安", "x":[1, 2]}}'.encode()
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        client.send(log_in(RECORD, "binance"), text)
        await service.message()
        assert (await service.frame())[1].endswith(b"," + text[1:])


async def test_a_message_of_its_own_signature_goes_before_the_sessions_key():
    other = a_record(account_id="bob")
    async with conversation(RECORD, other) as talk:
        client, service = await talk.open("binance")
        client.send(log_in(RECORD, "binance"), binance(other, "order.place", {"symbol": "BTCUSDT"}), TRADE["binance"])
        assert [(await service.message())["gateway"]["account_id"] for _ in range(3)] == ["alice", "bob", "alice"]


async def test_after_a_log_out_the_session_has_no_key(dialect):
    async with conversation(RECORD) as talk:
        client, service = await talk.open(dialect)
        client.send(log_in(RECORD, dialect), {"mobee": b'{"method":"logout"}', "binance": b'{"method":"session.logout"}'}[dialect])
        client.send(PRIVATE[dialect])
        await service.message()
        assert list((await service.message())["gateway"]) == ["client_ip", "request_id"]
        assert (await client.message())["gerbang"]["code"] == "missing_credentials"


async def test_the_state_of_a_session_is_told_by_the_gate():
    status = b'{"id":"s","method":"session.status"}'
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        client.send(status)
        nobody = (await client.message())["result"]
        assert (nobody["apiKey"], nobody["authorizedSince"]) == (None, None)
        client.send(log_in(RECORD, "binance"), status)
        await service.message()
        told = await client.message()
        assert (told["id"], told["status"], told["result"]["apiKey"]) == ("s", 200, RECORD.key_id)
        assert told["result"]["authorizedSince"] >= told["result"]["connectedSince"] > 0


# -- what is refused


async def test_a_refusal_reaches_the_client_and_nothing_the_service(dialect):
    async with conversation(READER) as talk:
        client, service = await talk.open(dialect)
        client.send(
            PRIVATE[dialect], b"{nonsense", b'{"method":"x","gateway":1}', UNLISTED[dialect], log_in(READER, dialect), TRADE[dialect]
        )
        client.send(log_in(READER, dialect, secret=b"wrong"), PUBLIC[dialect])
        codes = [(await client.message())["gerbang"]["code"] for _ in range(6)]
        expected = ["missing_credentials", "malformed_request", "malformed_request", "no_route", "scope_not_granted", "invalid_credentials"]
        assert codes == expected
        assert [(await service.message())["method"] for _ in range(2)] == [
            {"mobee": "login", "binance": "session.logon"}[dialect], json.loads(PUBLIC[dialect])["method"],
        ]  # fmt: skip
        assert talk.served.metrics.refused["no_route"] == 1


async def test_a_message_that_asks_several_things_must_be_granted_all_of_them():
    async with conversation(READER, RECORD) as talk:
        client, service = await talk.open("mobee")
        both = b'{"method":"subscribe","events":["MK","BL","TR.x"]}'
        client.send(log_in(READER, "mobee"), both, log_in(RECORD, "mobee"), both)
        refused = await client.message()
        assert refused["gerbang"]["code"] == "scope_not_granted"
        assert [event["event"] for event in refused["events"]] == ["MK", "BL", "TR.x"]
        assert [(await service.message())["method"] for _ in range(3)] == ["login", "login", "subscribe"]


async def test_a_log_in_and_a_signed_trade_pass_once_over_all_connections():
    async with conversation(RECORD) as talk:
        first, _ = await talk.open("binance")
        second, service = await talk.open("binance")
        order = binance(RECORD, "order.place", {"symbol": "BTCUSDT"})
        for message in (log_in(RECORD, "binance"), order):
            second.send(message)
            assert (await service.message())["gateway"]["key_id"] == RECORD.key_id
            first.send(message)
            assert (await first.message())["gerbang"]["code"] == "replayed_request"


async def test_a_listed_address_is_asked_for_at_every_message(dialect):
    elsewhere = a_record(ip_allowlist=(ip_address("8.8.8.8"),))
    async with conversation(elsewhere) as talk:
        client, _ = await talk.open(dialect)
        client.send(log_in(elsewhere, dialect), PRIVATE[dialect])
        told = (await client.message())["gerbang"]
        assert (told["code"], told["client_ip"]) == ("ip_not_allowed", "127.0.0.1")
        assert (await client.message())["gerbang"]["code"] == "missing_credentials"


async def test_a_connection_uses_so_many_keys_and_no_more():
    records = [a_record() for _ in range(MAX_KEYS + 1)]
    async with conversation(*records) as talk:
        client, service = await talk.open("mobee")
        client.send(*[log_in(record, "mobee") for record in records])
        for _ in range(MAX_KEYS):
            await service.message()
        told = (await client.message())["gerbang"]
        assert (told["code"], told["retry_after_ms"]) == (RateLimited.code, None)


async def test_an_order_whose_key_ends_while_its_claim_is_under_way_does_not_pass():
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        talk.guard.hold()
        client.send(binance(RECORD, "order.place", {"symbol": "BTCUSDT"}), PUBLIC["binance"])
        await talk.served.until(lambda: bool(talk.guard.held))
        talk.gate.services.lookup.peek = lambda *_: ABSENT
        talk.guard.release()
        assert (await client.message())["gerbang"]["code"] == "invalid_credentials"
        assert (await service.message())["method"] == "time"


@pytest.mark.parametrize("ended", [True, False])
async def test_an_order_whose_key_changes_while_it_waits_behind_another_passes_once_and_only_if_the_key_stands(ended):
    other = a_record(account_id="bob")
    found = ABSENT if ended else Principal.of(other)
    async with conversation(RECORD, other) as talk:
        client, service = await talk.open("binance")
        lookup = talk.gate.services.lookup
        peek = lookup.peek
        talk.guard.hold()
        client.send(*[binance(record, "order.place", {"symbol": "BTCUSDT"}) for record in (RECORD, other)], PUBLIC["binance"])
        await talk.served.until(lambda: len(talk.guard.held or ()) == 2)
        first, second = list(talk.guard.held or [])
        second(None)
        for _ in range(5):
            await asyncio.sleep(0)
        lookup.peek = lambda key_id, now_ms: found if key_id == other.key_id else peek(key_id, now_ms)
        first(None)
        assert (await service.message())["gateway"]["account_id"] == "alice"
        if ended:
            assert (await client.message())["gerbang"]["code"] == "invalid_credentials"
        else:
            assert (await service.message())["gateway"]["account_id"] == "bob"
        assert (await service.message())["method"] == "time"


async def test_of_messages_that_differ_in_their_values_few_are_scanned(monkeypatch):
    """And each arrives as it was sent, however many shapes there are."""
    scanned = []
    monkeypatch.setattr(base, "scan", lambda text: scanned.append(text) or scan(text))
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        for number in range(8):
            order = {"newClientOrderId": f"o{number}", "symbol": "BTCUSDT", "price": "9" * number}
            client.send(binance(RECORD, "order.place", order, own_id=f"id-{number}"), b'{"id":%d,"method":"time"}' % number)
            placed, asked = await service.message(), await service.message()
            assert placed.pop("gateway")["key_id"] == RECORD.key_id
            assert placed["params"].pop("timestamp")
            assert placed == {"id": f"id-{number}", "method": "order.place", "params": order}
            assert asked.pop("gateway")["client_ip"] == "127.0.0.1"
            assert asked == {"id": number, "method": "time"}
    assert len(scanned) == 4, "two of each: the first order proves a key, and what comes after that is remembered"


# -- order and back-pressure


async def test_messages_are_decided_in_the_order_they_came_and_few_wait(dialect):
    async with conversation(RECORD) as talk:
        client, service = await talk.open(dialect)
        talk.guard.hold()
        client.send(log_in(RECORD, dialect))
        client.send(*[PRIVATE[dialect]] * 50, UNLISTED[dialect], *[PUBLIC[dialect]] * 100)
        client.raw.send(frame(PING, b"still there", mask=b"mask"))
        await talk.served.until(lambda: bool(talk.guard.held))
        session = next(iter(inside.tunnels(talk.served)))
        await talk.served.until(lambda: inside.waiting(session) == MAX_WAITING)
        assert not inside.is_read(session)
        talk.guard.release()
        first = await service.message()
        assert "key_id" in first["gateway"]
        private = [await service.message() for _ in range(50)]
        assert all(message["gateway"]["key_id"] == RECORD.key_id for message in private)
        for _ in range(100):
            opcode, payload = await service.frame()
            if opcode == PING:
                opcode, payload = await service.frame()
            assert "key_id" not in json.loads(payload)["gateway"]
        assert (await client.message())["gerbang"]["code"] == "no_route"
        await talk.served.until(lambda: inside.is_read(session))


async def test_claims_of_one_connection_are_made_together_and_its_messages_pass_in_their_order():
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        client.send(log_in(RECORD, "binance"))
        await service.message()
        before = talk.served.metrics.admitted.copy()
        talk.guard.hold()
        orders = [binance(RECORD, "order.place", {"symbol": "BTCUSDT", "newClientOrderId": f"o{number}"}) for number in range(10)]
        client.send(*orders[:5], UNLISTED["binance"], *orders[5:], PUBLIC["binance"])
        await talk.served.until(lambda: len(talk.guard.held or ()) == 10)
        held, talk.guard.held = talk.guard.held, None
        for answered in reversed(held[1:]):
            answered(None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (talk.served.metrics.admitted, sum(talk.served.metrics.refused.values())) == (before, 0)
        held[0](None)
        told = [await service.message() for _ in range(11)]
        assert [message.get("params", {}).get("newClientOrderId") for message in told] == [*(f"o{number}" for number in range(10)), None]
        assert (await client.message())["gerbang"]["code"] == "no_route"


async def test_nothing_is_decided_before_a_log_in_or_a_log_out_has_taken_effect():
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        talk.guard.hold()
        client.send(log_in(RECORD, "binance"), PRIVATE["binance"], b'{"id":1,"method":"session.logout"}', PRIVATE["binance"])
        await talk.served.until(lambda: bool(talk.guard.held))
        talk.guard.release()
        told = [await service.message() for _ in range(3)]
        assert ["key_id" in message["gateway"] for message in told] == [True, True, False]
        assert (await client.message())["gerbang"]["code"] == "missing_credentials"


async def test_of_a_message_sent_twice_on_one_connection_one_passes():
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        order = binance(RECORD, "order.place", {"symbol": "BTCUSDT"})
        client.send(order, order, PUBLIC["binance"])
        assert [(await service.message())["method"] for _ in range(2)] == ["order.place", "time"]
        assert (await client.message())["gerbang"]["code"] == "replayed_request"


async def test_a_service_that_does_not_read_stops_the_client_and_loses_nothing():
    big = b'{"method":"subscribe","events":["MK"],"x":"%b"}' % (b"x" * 60_000)
    async with conversation() as talk:
        client, service = await talk.open("mobee")
        session = next(iter(inside.tunnels(talk.served)))
        count = 0
        while not inside.service_is_full(session):
            client.send(big)
            count += 1
            await asyncio.sleep(0)
        assert not inside.is_read(session)
        client.send(*[big] * 20)
        for _ in range(count + 20):
            assert len((await service.message())["x"]) == 60_000
        await talk.served.until(lambda: inside.is_read(session))


@pytest.mark.parametrize(
    ("wrong", "count", "longest"),
    [
        (b'{"method":"nothing-like-it"}', 1_000, 1_000),
        (b'{"method":"subscribe","events":["X"%b]}' % (b',"X"' * 255), 10, 50_000),  # a status for each event
    ],
)
async def test_refusals_that_cannot_be_sent_yet_are_bounded_in_bytes(wrong, count, longest):
    async with conversation() as talk:
        client, service = await talk.open("mobee")
        session = next(iter(inside.tunnels(talk.served)))
        service.side.send(b"\x01\x05begin")  # a message of the service that does not end
        assert await client.raw.reader.readexactly(7) == b"\x01\x05begin"
        client.send(*[wrong] * count)
        await talk.served.until(lambda: not inside.is_read(session) and inside.unsent(session) >= MAX_HELD)
        assert inside.unsent(session) < MAX_HELD + longest
        service.side.send(b"\x80\x03end")
        assert await client.raw.reader.readexactly(5) == b"\x80\x03end"
        for _ in range(count):
            assert (await client.message())["gerbang"]["code"] == "no_route"


async def test_a_client_that_reads_nothing_is_told_no_more_until_it_does():
    async with conversation() as talk:
        client, _service = await talk.open("mobee")
        session = next(iter(inside.tunnels(talk.served)))
        session.client_full()  # as its transport says when 64 KiB are unread
        session.client_data(frame(TEXT, UNLISTED["mobee"], mask=b"mask") * 5)
        assert not inside.is_read(session)
        assert talk.served.metrics.refused["no_route"] == 0
        session.client_drained()
        for _ in range(5):
            assert (await client.message())["gerbang"]["code"] == "no_route"


# -- frames


async def test_server_to_client_frames_pass_as_they_are_and_the_gates_come_between_messages():
    async with conversation() as talk:
        client, service = await talk.open("mobee")
        service.side.send(b"\x01\x03one")
        assert await client.raw.reader.readexactly(5) == b"\x01\x03one"
        client.send(UNLISTED["mobee"])
        client.raw.send(frame(PING, b"x", mask=b"abcd"))
        assert await service.frame() == (PING, b"x")
        rest = b"\x8a\x01x" + b"\x80\x03two" + b"\x82\x01z"
        service.side.send(rest)
        assert await client.raw.reader.readexactly(8) == rest[:8]
        assert (await client.message())["gerbang"]["code"] == "no_route"
        assert await client.raw.reader.readexactly(3) == rest[8:]


async def test_a_message_in_fragments_arrives_whole_with_pings_and_pongs_in_between():
    text = PUBLIC["mobee"]
    async with conversation() as talk:
        client, service = await talk.open("mobee")
        stream = b"".join(
            frame(TEXT if not index else CONTINUATION, text[index : index + 1], mask=b"wxyz")[:1].replace(
                b"\x81", b"\x01").replace(b"\x80", b"\x00" if index < len(text) - 1 else b"\x80")
            + frame(TEXT, text[index : index + 1], mask=b"wxyz")[1:]
            + (frame(PONG, b"p", mask=b"wxyz") if index == 3 else b"")
            for index in range(len(text))
        )  # fmt: skip
        for byte in stream:
            client.raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await service.frame() == (PONG, b"p")
        assert (await service.message())["events"] == ["MK"]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(2, b"x", mask=b"abcd"), 1003),
        (frame(TEXT, b"\xff", mask=b"abcd"), 1007),
        (frame(TEXT, b" " * 70_000, mask=b"abcd"), 1009),
        (frame(TEXT, b"{}"), 1002),
        (b"\xc1\x80abcd", 1002),
    ],
)
async def test_what_breaks_the_framing_closes_with_its_code_behind_what_came_before(broken, code):
    async with conversation() as talk:
        client, service = await talk.open("mobee")
        client.send(PUBLIC["mobee"], UNLISTED["mobee"])
        client.raw.send(broken + frame(TEXT, PUBLIC["mobee"], mask=b"abcd"))
        await service.message()
        assert await service.frame() == (CLOSE, close_frame(code, _reason(await _closed(client, code)))[2:])
        assert await service.side.reader.read() == b""
        assert talk.served.metrics.tunnels == 0


async def test_close_frames_pass_both_ways_with_their_codes(dialect):
    async with conversation(RECORD) as talk:
        client, service = await talk.open(dialect)
        talk.guard.hold()
        client.send(log_in(RECORD, dialect))
        client.raw.send(close_frame(4_321, "bye", mask=b"abcd") + frame(TEXT, PUBLIC[dialect], mask=b"abcd"))
        await talk.served.until(lambda: bool(talk.guard.held))
        talk.guard.release()
        assert "key_id" in (await service.message())["gateway"]
        assert await service.frame() == (CLOSE, (4_321).to_bytes(2, "big") + b"bye")
        service.side.send(close_frame(4_321, "bye"))
        service.side.close()
        assert await client.closed() == (4_321, "bye")


# -- the end of a key, and of the gate


@pytest.mark.parametrize("which", [0, 1])
async def test_a_connection_that_uses_several_keys_ends_with_any_of_them(which):
    records = [a_record(), a_record()]
    async with conversation(*records) as talk:
        client, service = await talk.open("binance")
        client.send(log_in(records[0], "binance"), binance(records[1], "order.place", {"symbol": "X"}))
        await service.message()
        await service.message()
        bystander, _ = await talk.open("binance")
        talk.served.valid_keys.discard(records[which].key_id)
        talk.served.tunnels.invalidated(records[which].key_id)
        assert (await client.closed())[0] == 1008
        assert (await service.frame())[0] == CLOSE
        bystander.send(PUBLIC["binance"])
        await talk.served.until(lambda: talk.served.metrics.tunnels == 1)


async def test_a_key_that_ends_between_its_log_in_and_its_use_is_noticed():
    async with conversation(RECORD) as talk:
        client, service = await talk.open("mobee")
        talk.served.valid_keys.discard(RECORD.key_id)  # and nobody says so
        client.send(log_in(RECORD, "mobee"))
        await service.message()
        assert (await client.closed())[0] == 1008


async def test_a_key_that_expires_ends_its_sessions(monkeypatch):
    soon = a_record(expires_ms=clock.now_ms() + 3_600_000)
    async with conversation(soon) as talk:
        client, service = await talk.open("mobee")
        client.send(log_in(soon, "mobee"))
        await service.message()
        monkeypatch.setattr(clock, "now_ms", lambda: soon.expires_ms)
        assert await client.closed() == (1008, "key expired")


async def test_a_drain_tells_the_client_goes_on_for_a_moment_and_closes(dialect):
    async with conversation() as talk:
        client, service = await talk.open(dialect)
        drained = asyncio.ensure_future(talk.served.plane.drain(20_000))  # noqa: TID251 - awaited below
        if dialect == "binance":
            event = (await client.message())["event"]
            assert (event["e"], event["E"] > 0) == ("serverShutdown", True)
        client.send(PUBLIC[dialect])
        await service.message()
        service.send(b'"an answer"')
        assert await client.frame() == (TEXT, b'"an answer"')
        assert await client.closed() == (1001, "shutting down")
        assert await drained


async def test_messages_of_an_open_session_are_refused_while_its_route_is_closed(dialect):
    async with conversation(RECORD) as talk:
        client, service = await talk.open(dialect)
        client.send(PUBLIC[dialect])
        await service.message()
        talk.served.reload(gate=session_gate(RECORD, every_route={"maintenance": "Back at ten"}))
        for message in (log_in(RECORD, dialect), PUBLIC[dialect]):
            client.send(message)
            told = (await client.message())["gerbang"]
            assert (told["code"], told["status"], told["detail"]) == ("maintenance", 503, "Back at ten")
        talk.served.reload(gate=session_gate(RECORD))
        client.send(PUBLIC[dialect])
        assert (await service.message())["gateway"]["client_ip"] == "127.0.0.1"
    assert len(talk.upstream.requests) == 1


async def test_a_reload_changes_what_may_be_asked_on_open_connections():
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        client.send(PUBLIC["binance"])
        await service.message()
        methods = {**METHODS, "binance": {"account.status": {"scope": "read"}}}
        talk.served.reload(gate=session_gate(RECORD, methods=methods))
        client.send(PUBLIC["binance"])
        assert (await client.message())["gerbang"]["code"] == "no_route"


async def test_a_client_that_goes_away_leaves_nothing_behind(dialect):
    async with conversation(RECORD) as talk:
        client, service = await talk.open(dialect)
        talk.guard.hold()
        client.send(log_in(RECORD, dialect), *[PRIVATE[dialect]] * 10)
        await talk.served.until(lambda: bool(talk.guard.held))
        await client.raw.close()
        assert await service.side.reader.read() == b""
        talk.guard.release()
        await talk.served.until(lambda: talk.served.metrics.tunnels == 0 and not inside.remembered(talk.served.tunnels))


async def test_a_defect_is_told_without_its_text(monkeypatch):
    gate = session_gate()
    monkeypatch.setattr(gate, "method", lambda *_: 1 / 0)
    async with conversation(gate=gate) as talk:
        client, _ = await talk.open("binance")
        client.send(PUBLIC["binance"])
        told = await client.message()
        assert (told["id"], told["status"], told["gerbang"]["code"]) == (7, 500, "internal_error")
        assert "division" not in json.dumps(told)


async def _closed(client: Client, code: int) -> tuple[int, str]:
    assert (await client.message())["gerbang"]["code"] == "no_route"
    found = await client.closed()
    assert found[0] == code
    return found


def _reason(found: tuple[int, str]) -> str:
    return found[1]


# -- what one connection may cost the others


async def test_messages_of_who_has_proven_nothing_are_read_one_in_a_turn_when_there_is_time_for_no_more(monkeypatch):
    """What came at once is read over several turns, between which everybody else has theirs."""
    monkeypatch.setattr(fair_scheduler, "BUDGET_NS", 0)
    message = json.dumps({"id": 1, "method": "x", "params": {"a": "b" * 3_000}}).encode()
    async with conversation() as talk:
        client, _ = await talk.open("binance")
        refused = talk.served.metrics.refused
        at_most, before = 0, 0
        client.send(*[message] * 20)
        async with asyncio.timeout(20):
            while before < 20:
                await asyncio.sleep(0)
                at_most, before = max(at_most, refused["no_route"] - before), refused["no_route"]
        assert at_most == 1


async def test_messages_of_who_has_proven_a_key_wait_for_no_turn_until_one_is_refused(monkeypatch, dialect):
    monkeypatch.setattr(fair_scheduler, "BUDGET_NS", 0)
    async with conversation(RECORD) as talk:
        client, service = await talk.open(dialect)
        client.send(log_in(RECORD, dialect))
        await service.message()
        turns = talk.served.plane.worker.scheduler
        before = turns.deferred
        for _ in range(20):
            client.send(PRIVATE[dialect])
            await service.message()
        assert turns.deferred == before
        client.send(UNLISTED[dialect])
        assert (await client.message())["gerbang"]["code"] == "no_route"
        client.send(PRIVATE[dialect])
        await service.message()
        assert turns.deferred > before


async def test_behind_a_refused_message_others_wait_for_turns_though_it_is_not_told_yet(monkeypatch):
    monkeypatch.setattr(fair_scheduler, "BUDGET_NS", 0)
    async with conversation(RECORD) as talk:
        client, service = await talk.open("binance")
        client.send(log_in(RECORD, "binance"))
        await service.message()
        turns, before = talk.served.plane.worker.scheduler, talk.served.plane.worker.scheduler.deferred
        talk.guard.hold()
        client.send(binance(RECORD, "order.place", {"symbol": "BTCUSDT"}), *[b"{"] * 8)
        session = next(iter(inside.tunnels(talk.served)))
        await talk.served.until(lambda: inside.ahead(session) == 9)
        assert turns.deferred - before >= 7, "only the first of them is decided as what a proven key has sent"
        talk.guard.release()
        assert (await service.message())["method"] == "order.place"
        assert [(await client.message())["gerbang"]["code"] for _ in range(8)] == ["malformed_request"] * 8


async def test_an_address_whose_messages_are_refused_for_ever_is_hung_up_on(monkeypatch):
    monkeypatch.setattr("gateway.admission.gate.REFUSED_MESSAGES", Rate(5, 60_000))
    async with conversation(RECORD) as talk:
        client, _ = await talk.open("binance")
        client.send(*[b'{"id":1,"method":"x"}'] * 50)
        codes = [(await client.message())["gerbang"]["code"] for _ in range(6)]  # the last is told, too
        assert set(codes) == {"no_route"}
        assert await client.closed() == (1008, "too many refused messages from your address")


async def test_refusals_that_a_key_answers_for_are_bounded_by_its_limits_alone(monkeypatch):
    monkeypatch.setattr("gateway.admission.gate.REFUSED_MESSAGES", Rate(5, 60_000))
    async with conversation(READER) as talk:
        client, service = await talk.open("binance")
        client.send(log_in(READER, "binance"), *[TRADE["binance"]] * 20, PUBLIC["binance"])
        assert {(await client.message())["gerbang"]["code"] for _ in range(20)} == {"scope_not_granted"}
        assert [(await service.message())["method"] for _ in range(2)] == ["session.logon", "time"]


async def test_nothing_is_decided_any_more_once_the_service_has_gone(monkeypatch):
    """Nor sent behind the end: what others are sent in that turn is not lost for it."""
    monkeypatch.setattr(fair_scheduler, "BUDGET_NS", 0)
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failed.append(context))
    async with conversation() as talk:
        client, service = await talk.open("mobee")
        client.send(*[UNLISTED["mobee"]] * 2_000)
        await client.message()
        service.side.close()
        await talk.served.until(lambda: talk.served.metrics.tunnels == 0)
        refused = talk.served.metrics.refused["no_route"]
        await client.raw.rest()
        assert talk.served.metrics.refused["no_route"] == refused
        assert failed == []
