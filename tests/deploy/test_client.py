"""The commands' JSON client: a token reaches the given service alone, and an answer that is none is told in one line."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.client import Unanswered, ask


@contextmanager
def server(answer):
    """A server that answers each request by ``answer(handler)``. Yields its URL and the received header sections."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self):
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():
                received.append(dict(self.headers))
                answer(self.wfile)
            self.close_connection = True

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", received
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_does_not_follow_a_redirect(method, status):
    with server(lambda out: out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as (elsewhere, received):
        redirect = f"HTTP/1.1 {status} x\r\nLocation: {elsewhere}/log-in\r\nContent-Length: 0\r\n\r\n".encode()
        with server(lambda out: out.write(redirect)) as (url, asked), pytest.raises(Unanswered, match="redirects to"):
            ask(method, url, token="t" * 24, body={} if method == "POST" else None)
        assert ([each["Authorization"] for each in asked], received) == ([f"Bearer {'t' * 24}"], [])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 500 x\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_what_is_no_whole_answer_is_told_in_one_line(raw):
    with server(lambda out: out.write(raw)) as (url, _), pytest.raises(Unanswered) as told:
        ask("GET", url)
    assert str(told.value).startswith(url)
    assert "\n" not in str(told.value)


def test_json_that_is_nested_too_deeply_is_text():
    body = b"[" * 100_000
    with server(lambda out: out.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))) as (url, _):
        assert ask("GET", url).content == body.decode()
