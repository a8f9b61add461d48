"""deploy/clients: what the examples of sessions send is what the gate admits; and ``gerbang stream``, which is one of them."""

import asyncio
import errno
import importlib
import json
import socket
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from gateway.websocket.frames import TEXT, close_frame, frame
from tests.support.keys import a_record
from tests.support.ports import free_port
from tests.support.session import Service, conversation, switching

CLIENTS = Path(__file__).parents[3] / "deploy" / "clients"
METHODS = {
    "mobee": {"subscribe BL": {"scope": "read"}, "subscribe PO": {"scope": "read"}},
    "binance": {"account.status": {"scope": "read"}, "userDataStream.subscribe": {"scope": "read"}},
}
RECORD = a_record()
PATHS = {"mobee": "/ws", "binance": "/ws-api/v3"}
COUNT = {"mobee": 2, "binance": 3}


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"key_id": RECORD.key_id, "secret": RECORD.secret.reveal().decode()}))
    return file


def echoing(count):
    """A service that answers each of so many messages by its member ``gateway`` and then closes."""

    async def script(side, request):
        side.send(switching(request))
        service = Service(side)
        for _ in range(count):
            side.send(frame(TEXT, json.dumps({"from": (await service.message())["gateway"]["key_id"]}).encode()))
        side.send(close_frame(1000, ""))
        await side.reader.read()

    return script


async def run(*command):
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    output, errors = await process.communicate()
    return process.returncode, output.decode().splitlines(), errors.decode()


EXAMPLES = pytest.mark.parametrize(
    "command",
    [
        [sys.executable, CLIENTS / "python" / "session.py"],
        ["node", "--no-warnings", "--experimental-websocket", CLIENTS / "node" / "session.mjs"],
    ],
    ids=["python", "node"],
)


@pytest.mark.parametrize("dialect", PATHS)
@EXAMPLES
async def test_the_examples_are_admitted(command, dialect, key_file):
    async with conversation(RECORD, script=echoing(COUNT[dialect]), methods=METHODS) as talk:
        status, lines, errors = await run(*command, f"ws://127.0.0.1:{talk.served.port}{PATHS[dialect]}", key_file)
    assert (status, errors) == (0, "")
    assert [json.loads(line) for line in lines] == [{"from": RECORD.key_id}] * COUNT[dialect]


@pytest.mark.parametrize("dialect", PATHS)
@EXAMPLES
async def test_an_example_that_is_refused_tells_why_and_ends(command, dialect, key_file):
    key_file.write_text(json.dumps({"key_id": RECORD.key_id, "secret": "gbs_wrong"}))
    async with conversation(RECORD, script=echoing(9), methods=METHODS) as talk:
        status, lines, errors = await run(*command, f"ws://127.0.0.1:{talk.served.port}{PATHS[dialect]}", key_file)
    (refused,) = (json.loads(line) for line in lines)
    assert (status, errors) == (1, refused["gerbang"]["detail"] + "\n")
    assert refused["gerbang"]["code"] == "invalid_credentials"


@pytest.mark.parametrize("dialect", PATHS)
@EXAMPLES
async def test_an_example_whose_session_is_ended_tells_why_and_ends(command, dialect, key_file):
    async def ending(side, request):
        side.send(switching(request))
        await Service(side).message()
        side.send(close_frame(1008, "the key was revoked"))
        await side.reader.read()

    async with conversation(RECORD, script=ending, methods=METHODS) as talk:
        status, lines, errors = await run(*command, f"ws://127.0.0.1:{talk.served.port}{PATHS[dialect]}", key_file)
    assert (status, lines) == (1, [])
    assert "1008" in errors
    assert "the key was revoked" in errors
    assert "Traceback" not in errors


@EXAMPLES
async def test_an_example_without_a_secret_says_so(command, key_file):
    key_file.write_text(json.dumps({"key_id": RECORD.key_id, "private_key": "-----BEGIN PRIVATE KEY-----"}))
    status, _, errors = await run(*command, "ws://127.0.0.1:1/ws", key_file)
    assert (status, errors.count("\n"), "the key file has none" in errors) == (1, 1, True)


@EXAMPLES
async def test_an_example_that_finds_nobody_ends(command, key_file):
    status, _, errors = await run(*command, f"ws://127.0.0.1:{free_port()}/ws", key_file)
    assert (status, "Traceback" in errors, errors != "") == (1, False, True)


MESSAGES = {
    "mobee": ['{"method":"subscribe","events":["BL"]}'],
    "binance": ['{"id":1,"method":"account.status"}', '{"id":2,"method":"userDataStream.subscribe"}'],
}
STREAM = [sys.executable, "-m", "deploy.cli", "stream"]


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_stream_logs_in_sends_and_prints(dialect, key_file):
    async with conversation(RECORD, script=echoing(COUNT[dialect]), methods=METHODS) as talk:
        url = f"ws://127.0.0.1:{talk.served.port}{PATHS[dialect]}"
        sent = [part for message in MESSAGES[dialect] for part in ("--send", message)]
        status, lines, errors = await run(*STREAM, url, "--key", key_file, "--dialect", dialect, *sent)
    assert (status, errors) == (0, "")
    assert [json.loads(line) for line in lines] == [{"from": RECORD.key_id}] * COUNT[dialect]


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_stream_whose_log_in_is_refused_says_why(dialect, key_file):
    key_file.write_text(json.dumps({"key_id": RECORD.key_id, "secret": "gbs_wrong"}))
    async with conversation(RECORD, methods=METHODS) as talk:
        url = f"ws://127.0.0.1:{talk.served.port}{PATHS[dialect]}"
        status, lines, errors = await run(*STREAM, url, "--key", key_file, "--dialect", dialect)
    assert status == 1
    assert json.loads(lines[0])["gerbang"]["code"] == "invalid_credentials"
    assert "signature" in errors


async def test_a_stream_that_cannot_be_says_why(key_file):
    async with conversation(RECORD, methods=METHODS) as talk:
        url = f"ws://127.0.0.1:{talk.served.port}"
        for path, reason in (("/nothing", "404: no route for /nothing"), ("/api/v3/nothing", "404: no route for /api/v3/nothing")):
            status, _, errors = await run(*STREAM, url + path, "--key", key_file)
            assert (status, reason in errors) == (1, True)
        status, _, errors = await run(*STREAM, f"{url}/ws", "--key", key_file, "--send", "[1]")
        assert (status, "JSON object" in errors) == (2, True)
    status, _, errors = await run(*STREAM, f"{url}/ws", "--key", key_file)
    assert (status, errors) == (1, f"Error: {url}/ws cannot be reached: Connection refused\n")


async def test_a_host_without_an_address_is_told_in_the_words_of_the_resolver():
    module = importlib.import_module("deploy.cli.stream")
    place = ConnectionKey("nothing.invalid", 80, False, True, None, None, None)
    unknown = aiohttp.ClientConnectorDNSError(place, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert module.cause_of(unknown) == "Name or service not known"
    assert module.cause_of(aiohttp.ClientConnectorError(place, ConnectionRefusedError(errno.ECONNREFUSED, "…"))) == "Connection refused"


async def test_why_there_is_no_stream_is_not_waited_for_for_ever(monkeypatch):
    module = importlib.import_module("deploy.cli.stream")
    monkeypatch.setattr(module, "_REASON_S", 0.05)

    over = asyncio.Event()

    async def silent(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    async with asyncio.timeout(15), await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        async with aiohttp.ClientSession() as session:
            assert await module.reason_of(session, url, 403) == ""
        await over.wait()
