"""A blocking JSON client for this installation's own services."""

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, NamedTuple

from gateway.errors import GerbangError


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the answer: urllib would send the token to whatever host it names, and a POST as a GET."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


# No proxy and no redirects: requests contain tokens.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


class Unanswered(GerbangError):
    """The service did not answer, or the URL is invalid. The message is one line, then the caller's advice."""


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    content: Any
    """Parsed JSON, or text if it is not JSON."""


def ask(
    method: str,
    url: str,
    *,
    body: object = None,
    form: bytes | None = None,
    token: str | None = None,
    seconds: float = 15,
    advice: str = "",
) -> Reply:
    """Send one request.

    :param body: sent as JSON
    :param form: sent unchanged, as ``application/x-www-form-urlencoded``
    :param token: sent as a bearer token
    :param advice: what to do if there is no answer, such as which option names the service
    :raises Unanswered: there is no answer; a refusal is an answer
    """
    if not url.startswith(("http://", "https://")) or not url.isascii() or not url.isprintable():
        raise Unanswered(f"{url!r} is not an http:// or https:// URL")
    headers = {"Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = form
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  # the scheme was checked
    try:
        return _sent(request, seconds)
    except TimeoutError:
        why = f"{url} did not answer within {seconds:.0f} s"
    except urllib.error.URLError as error:
        why = f"{url} cannot be reached: {getattr(error.reason, 'strerror', None) or error.reason}"
    except ConnectionError as error:
        why = f"{url}: {error}"
    except HTTPException as error:
        why = f"{url}: the answer is not HTTP, or is incomplete ({type(error).__name__})"
    except (OSError, ValueError) as error:
        why = f"{url}: {error}"
    raise Unanswered(f"{why}\n{advice}".rstrip())


def _sent(request: urllib.request.Request, seconds: float) -> Reply:
    try:
        with _OPENER.open(request, timeout=seconds) as answer:
            return Reply(answer.status, _parsed(answer.read()))
    except urllib.error.HTTPError as error:
        with error:
            if 300 <= error.code < 400:
                raise Unanswered(f"{request.full_url} redirects to {error.headers.get('Location')!r}: give the service's own URL") from None
            return Reply(error.code, _parsed(error.read()))


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode(errors="replace").strip()


def explanation(reply: Reply) -> str:
    """A refusal as text: its detail, then each problem that it lists."""
    answer = reply.content
    if not isinstance(answer, dict):
        return f"{reply.status} {answer}".strip()
    lines = [str(answer.get("detail") or answer.get("title") or answer.get("code") or answer)]
    for problem in answer.get("problems") or answer.get("errors") or []:
        if isinstance(problem, dict):
            where = problem.get("path") or problem.get("field")
            lines.append(f"{where}: {problem.get('message', '')}" if where else str(problem.get("message", problem)))
        else:
            lines.append(str(problem))
    return "\n".join(lines)
