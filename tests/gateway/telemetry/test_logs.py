"""Logs: one JSON object a line, nothing in it that must not leave the process."""

import json
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from gateway.telemetry import AccessLog, configure_logging
from gateway.telemetry.logs import REFUSALS_PER_SECOND, LineSink

SECRET = "gbs_" + "a1B2" * 12


@pytest.fixture
def lines():
    """Reads what was logged since it was last called."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_logging("info", descriptor=writer, service="gateway", worker=3)

    def read():
        try:
            return [json.loads(line) for line in os.read(reader, 1 << 20).decode().splitlines()]
        except BlockingIOError:
            return []

    yield read
    structlog.reset_defaults()
    root.handlers[:], root.level = before
    os.close(reader)
    os.close(writer)


def test_a_line_carries_level_time_and_the_process_values(lines):
    structlog.get_logger("x").warning("listener_lost", channel="redis")
    (line,) = lines()
    assert line["event"] == "listener_lost"
    assert (line["level"], line["service"], line["worker"], line["channel"]) == ("warning", "gateway", 3, "redis")
    assert line["timestamp"].endswith("Z")


def test_levels_below_the_configured_one_are_left_out(lines):
    structlog.get_logger("x").debug("detail")
    assert lines() == []


@pytest.mark.parametrize(
    "values",
    [
        {"note": f"got {SECRET} here"},
        {"note": SECRET.encode()},
        {"nested": {"deep": [SECRET]}},
        {"secret": "hunter2-value"},
        {"Set-Cookie": "hunter2-value"},
        {"signature": b"hunter2-value"},
        {"headers": {"Authorization": "hunter2-value"}},
        {"path": "/api/v3/account?timestamp=1&signature=hunter2-value"},
        {"path": b"/v1/orders?x=hunter2-value"},
        {"url": "redis://user:hunter2-value@127.0.0.1:6379/0"},
        {"error": ValueError("postgresql://gerbang:hunter2-value@db/gerbang")},
    ],
)
def test_nothing_secret_is_written(lines, values):
    structlog.get_logger("x").info("event", **values)
    (line,) = lines()
    assert "hunter2-value" not in json.dumps(line)
    assert SECRET not in json.dumps(line)


def test_a_traceback_is_redacted_too(lines):
    try:
        raise ValueError(SECRET)
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = lines()
    assert "ValueError: gbs_***" in line["exception"]


def test_libraries_that_use_logging_come_out_in_the_same_form(lines):
    logging.getLogger("aiohttp.server").error("bad %s", f"request {SECRET}")
    (line,) = lines()
    assert (line["event"], line["level"]) == ("bad request gbs_***", "error")


def test_an_ordinary_question_mark_stays(lines):
    structlog.get_logger("x").info("really?", note="is it? yes")
    (line,) = lines()
    assert (line["event"], line["note"]) == ("really?", "is it? yes")


def test_configuring_again_and_again_opens_nothing_more(lines):
    reader, writer = os.pipe()
    configure_logging("info", descriptor=writer)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        configure_logging("info", descriptor=writer)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(reader)
    os.close(writer)


def test_a_line_that_cannot_be_written_is_dropped_and_counted():
    before = LineSink.dropped
    with Path("/dev/full").open("wb", buffering=0) as full:
        LineSink(full.fileno()).msg("a line")
    assert LineSink.dropped == before + 1


@pytest.mark.parametrize("make", [os.pipe, lambda: [end.detach() for end in socket.socketpair()]], ids=["pipe", "socket"])
def test_areader_that_hangs_stops_nobody_and_lines_come_whole_again_when_it_reads(make):
    reader, writer = make()
    sink, before = LineSink(writer), LineSink.dropped
    sent = 0
    while LineSink.dropped == before:
        sink.msg("x" * 999)
        sent += 1
    os.set_blocking(reader, False)
    got = b""
    with suppress(BlockingIOError):
        while True:
            got += os.read(reader, 1 << 20)
    sink.msg("after")
    lines = (got + os.read(reader, 1 << 20)).decode().split("\n")
    assert lines[-2:] == ["after", ""]
    assert lines.count("x" * 999) == sent - 1
    sink.close()
    os.close(reader)
    os.close(writer)


def test_a_line_does_not_join_the_cut_line_of_another_process():
    reader, writer = os.pipe()
    one, other, before = LineSink(writer), LineSink(writer), LineSink.dropped
    one.msg("x" * (1 << 20))
    other.msg("lost")
    assert LineSink.dropped == before + 2
    os.set_blocking(reader, False)
    got = b""
    with suppress(BlockingIOError):
        while True:
            got += os.read(reader, 1 << 20)
    other.msg("whole")
    assert (got + os.read(reader, 1 << 20)).decode().split("\n")[-2:] == ["whole", ""]
    for sink in (one, other):
        sink.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("share", "taken"), [(0.0, 0), (0.01, 10), (0.5, 500), (1.0, 1000)])
def test_the_access_log_takes_its_share(share, taken):
    access = AccessLog(share)
    assert access.enabled == (share > 0)
    assert sum(access.sampled() for _ in range(1000)) == pytest.approx(taken, abs=1)


def test_without_a_share_refusals_are_logged_within_a_budget_and_the_rest_are_counted(lines):
    access = AccessLog(0.0)
    assert sum(access.takes(5_000 + number) for number in range(REFUSALS_PER_SECOND + 7)) == REFUSALS_PER_SECOND
    assert lines() == []
    assert access.takes(6_000)
    (line,) = lines()
    assert (line["event"], line["count"]) == ("refusals_not_logged", 7)
    assert access.takes(7_000)
    assert all(AccessLog(0.01).takes(5_000) for _ in range(REFUSALS_PER_SECOND * 2))
