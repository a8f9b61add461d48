"""Read a price, then place and cancel an order below it: python order.py URL KEYFILE."""

import base64
import hmac
import json
import sys
import time
from typing import Any

import requests

url, key = sys.argv[1], json.load(open(sys.argv[2]))
secret = key.get("secret") or sys.exit("this example signs with a secret, and the key file has none; sign.py shows Ed25519 and RSA")


def call(method: str, path: str, body: str = "") -> Any:
    timestamp = str(time.time_ns() // 1_000_000)
    message = f"{method}\n{path}\n{timestamp}" + (f"\n{body}" if body else "")
    signature = base64.b64encode(hmac.digest(secret.encode(), message.encode(), "sha256")).decode()
    headers = {"X-API-Key": key["key_id"], "X-Request-Timestamp": timestamp, "X-Request-Signature": signature}
    answer = requests.request(method, url + path, data=body, headers=headers, timeout=10)
    # The answer's "detail" says why, and what to do.
    return answer.json() if answer.ok else sys.exit(f"{method} {path} was refused: {answer.status_code} {answer.text}")


price = str(int(call("GET", "/v1/markets/BTC-IDR/bid-ask-price")["bid"]) * 9 // 10 // 1000 * 1000)
order = call("POST", "/v1/orders", json.dumps({"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": price, "quantity": "0.001"}))
print("placed", order["id"], order["status"], "at", order["price"])
print("open", [each["id"] for each in call("GET", "/v1/orders")["orders"] if each["status"] == "open"])
print("cancelled", call("DELETE", f"/v1/orders/{order['id']}")["status"])
