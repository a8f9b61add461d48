"""Bytes as a client might send them on an open WebSocket session, through frames, JSON and admission. Run by ``run``.

Every input ends in admitted messages, error messages or a close code, and the same ones however it is cut. A session that has learnt the
shapes of honest messages, and then of this input's, reads each message as one that scans it, the first time, the second and the third.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz import words

with atheris.instrument_imports(include=["gateway"]):
    from gateway.admission.outcome import Admitted, KeyNeeded
    from gateway.admission.sessions import SESSIONS, Shape
    from gateway.errors import Refusal
    from gateway.http1.message import Request
    from gateway.websocket.frames import TEXT, frame
    from gateway.websocket.messages import MessageReader
    from tests.support.keys import NOW_MS, a_record
    from tests.support.session import METHODS, PATHS, binance, log_in, made_of, session_gate

RECORD = a_record(key_id="gbk_g7B5aKW6T8qMGAAWIAolwb01YidV")
GATE = session_gate(RECORD)
HONEST = {
    "binance": [
        log_in(RECORD, "binance", now_ms=NOW_MS),
        binance(RECORD, "order.place", {"symbol": "BTCUSDT", "price": "900000.5", "quantity": 0.001, "recvWindow": 5000}, now_ms=NOW_MS),
        b'{"id":1,"method":"time","params":{"x":[1,{"y":null}],"limit":5}}',
    ],
    "mobee": [log_in(RECORD, "mobee", now_ms=NOW_MS), b'{"method":"subscribe","events":["BL","MK"]}'],
}
"""What clients send, and what a session has learnt before each input."""
NAMES = (
    *("apiKey", "signature", "timestamp", "recvWindow", "params", "method", "id", "gateway", "api", "hmac", "public_key", "events"),
    *("session.logon", "session.logout", "session.status", "login", "logout", "order.place", "subscribe", "unsubscribe"),
)
TOKENS = [
    *(b'"v3/', b"\\u0061", b"\\ud83d\\ude00", b"\\ud800", b"\\u0000", b"\xef\xbb\xbf", b"NaN", b"1E400", b"-0", b"null"),
    *(b"[[[[[[[[", b"]]]]]]]]", b'":{"', b'","', b"\x81\xfe", b"\x81\xff", b"\x01\x80", b"\x80\x80", b"\x88\x82", b"\x89\x80"),
]
CREDENTIALS = {"binance": ("apiKey", "signature"), "mobee": ("api", "hmac")}


def one(data: bytes) -> None:
    """One input, in both dialects: whole, and cut in two; its messages read by shapes, and scanned.

    :raises AssertionError: it does not come to the same, or is admitted as nothing may be
    """
    middle = len(data) // 2
    for dialect in SESSIONS:
        whole = _talk(dialect, [data])
        assert whole == _talk(dialect, [data[:middle], data[middle:]]), whole
        _learn(dialect, data)


def _learn(dialect: str, data: bytes) -> None:
    """Of the input as frames, where it is of such, and as one message, which reaches the shapes at once."""
    reader = MessageReader(4_096)
    reader.feed(data)
    texts: list[bytes] = []
    while (event := reader.next(0)) is not None:
        if event.opcode == TEXT:
            texts.append(event.payload)
    try:
        data.decode()
        texts.append(data)
    except UnicodeDecodeError:
        pass
    shapes: list[Shape] = []
    for honest in HONEST[dialect]:
        made_of(dialect, honest, shapes)
    for text in [each for each in texts for _ in range(3)] + texts:
        found = made_of(dialect, text, shapes)
        assert found == made_of(dialect, text, None), (text, found)


def _talk(dialect: str, pieces: list[bytes]) -> list[object]:
    reader = MessageReader(4_096)
    found: list[object] = []
    client = Request(b"GET", PATHS[dialect], PATHS[dialect], None, (), b"", "192.0.2.1", False, NOW_MS, "r")
    route = GATE.route(client)
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next(0)) is not None:
            found.append(
                (event.opcode, event.code, _decide(dialect, event.payload, client, route) if event.opcode == TEXT else event.payload)
            )
    return found


def _decide(dialect: str, text: bytes, client: Request, route: object) -> str:
    message = None
    try:
        message = SESSIONS[dialect].read(text, client, RECORD.key_id, NOW_MS, "r")
        admitted = GATE.admit(message, GATE.method(message, route))  # type: ignore[arg-type]
    except KeyNeeded:
        return "look up"
    except Refusal as error:
        return _refused(error, route, message)
    assert isinstance(admitted, Admitted)
    sent, forwarded = json.loads(text), json.loads(message.forwarded(b'"gateway":{"request_id":"r"}'))
    assert forwarded.pop("gateway") == {"request_id": "r"}
    for members in (sent, sent.get("params")) if dialect == "binance" else (sent,):
        for name in CREDENTIALS[dialect] if isinstance(members, dict) and (dialect == "mobee" or members is not sent) else ():
            members.pop(name, None)
    assert forwarded == sent, (forwarded, sent)
    return "admitted"


def _refused(refusal: Refusal, route: object, message: object) -> str:
    told = json.loads(GATE.render_message(refusal, route, message, "r"))  # type: ignore[arg-type]
    assert told["gerbang"]["code"] == refusal.code
    assert refusal.status < 500, refusal
    return refusal.code


def seeds() -> list[bytes]:
    """What honest clients send."""
    texts = [text for dialect in METHODS for text in HONEST[dialect]]
    zero = b"\0\0\0\0"
    frames = [frame(TEXT, text, mask=zero) for text in texts]
    pieces = b"\x01\x81" + zero + b"{" + frame(9, b"ping", mask=zero) + b"\x80\x81" + zero + b"}"
    return [*texts, *frames, b"".join(frames), pieces, frame(8, b"\x03\xe8", mask=zero)]


def main(argument: str) -> None:
    """:param argument: seconds to search, or a file with one input"""
    folder = Path(tempfile.mkdtemp(prefix="gerbang-fuzz-"))
    options = [sys.argv[0], f"-artifact_prefix={folder}/", "-max_len=4096", "-timeout=5"]
    if argument.isdigit():
        dictionary = folder / "words"
        words.write(dictionary, [*TOKENS, *(f'"{name}"'.encode() for name in NAMES)])
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
