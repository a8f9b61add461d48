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
    """Mobee's log-in: the text of ``api`` is what is signed, so it is written once."""
    api = json.dumps({"public_key": key_id, "timestamp": time.time_ns() // 1_000_000})
    return f'{{"method":"login","api":{api},"hmac":"{hmac.digest(secret.encode(), api.encode(), "sha256").hex()}"}}'


def signed(key_id: str, secret: str, own_id: int, method: str, **params: str | int) -> str:
    """One of Binance's signed messages: all parameters but the signature, sorted by name. Send numbers as the text you want them to be."""
    params |= {"apiKey": key_id, "timestamp": time.time_ns() // 1_000_000}
    payload = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    params["signature"] = hmac.digest(secret.encode(), payload.encode(), "sha256").hex()
    return json.dumps({"id": own_id, "method": method, "params": params})


async def main(url: str, key: dict[str, str]) -> None:
    """Log in and print what comes. A refusal says why in its member ``gerbang``."""
    if "/ws-api/" in url:
        first = signed(key["key_id"], key["secret"], 1, "session.logon")
        then = [json.dumps({"id": 2, "method": "account.status"}), json.dumps({"id": 3, "method": "userDataStream.subscribe"})]
    else:
        first = log_in(key["key_id"], key["secret"])
        then = [json.dumps({"method": "subscribe", "events": ["BL", "PO.ALL"]})]
    async with websockets.connect(url) as socket:
        for message in (first, *then):
            await socket.send(message)
        async for answer in socket:
            print(answer, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8"))))
