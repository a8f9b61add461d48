"""A WebSocket session with the library ``websockets``, in both dialects.

python session.py ws://127.0.0.1:8080/ws KEYFILE             Mobee's: logs in, then balances and orders as they change
python session.py ws://127.0.0.1:8080/ws-api/v3 KEYFILE      Binance's: logs on, then the account and its events
"""

import asyncio
import hmac
import json
import sys
import time
from pathlib import Path

import websockets


def log_in(key_id: str, secret: str) -> str:
    """Mobee's log-in message: the text of ``api`` is signed, so it is serialized only once."""
    api = json.dumps({"public_key": key_id, "timestamp": time.time_ns() // 1_000_000})
    return f'{{"method":"login","api":{api},"hmac":"{hmac.digest(secret.encode(), api.encode(), "sha256").hex()}"}}'


def signed(key_id: str, secret: str, own_id: int, method: str, **params: str | int) -> str:
    """A signed message in Binance's dialect: the signature covers all other parameters, sorted by name. Send numbers as strings."""
    params |= {"apiKey": key_id, "timestamp": time.time_ns() // 1_000_000}
    payload = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    params["signature"] = hmac.digest(secret.encode(), payload.encode(), "sha256").hex()
    return json.dumps({"id": own_id, "method": method, "params": params})


def refusal(answer: str) -> str | None:
    """Why a message was refused: by the gate in ``gerbang``, by the exchange in ``error`` or ``message``; ``None``: it was not."""
    parsed = json.loads(answer)
    if not isinstance(parsed, dict) or not ("gerbang" in parsed or "error" in parsed or parsed.get("status") == "error"):
        return None
    error = parsed.get("error")
    return (parsed.get("gerbang") or {}).get("detail") or (error["msg"] if isinstance(error, dict) else parsed.get("message")) or answer


async def main(url: str, key: dict[str, str]) -> str | None:
    """Log in, subscribe, and print messages until the session ends, with the reason if it was refused."""
    if "secret" not in key:
        return "this example signs with a secret (HMAC-SHA256), and the key file has none; sign.py shows Ed25519 and RSA"
    if "/ws-api/" in url:
        first = signed(key["key_id"], key["secret"], 1, "session.logon")
        then = [json.dumps({"id": 2, "method": "account.status"}), json.dumps({"id": 3, "method": "userDataStream.subscribe"})]
    else:
        first = log_in(key["key_id"], key["secret"])
        then = [json.dumps({"method": "subscribe", "events": ["BL", "PO.ALL"]})]
    try:
        async with websockets.connect(url) as socket:
            await socket.send(first)
            async for answer in socket:
                print(answer, flush=True)
                if why := refusal(str(answer)):
                    return why
                while then:  # logged in
                    await socket.send(then.pop(0))
    except websockets.ConnectionClosedError as closed:  # 1008: the key was deleted or revoked, its account frozen, or it expired
        return f"closed: {closed.rcvd or closed}"
    except (OSError, websockets.WebSocketException) as error:
        return f"no session: {error}"
    return None


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python session.py URL KEYFILE")
    sys.exit(asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8")))))
