// A WebSocket session in Node 22 and newer (in Node 20: node --experimental-websocket), in both dialects.
//
//   node session.mjs ws://127.0.0.1:8080/ws KEYFILE             Mobee's: logs in, then balances and orders as they change
//   node session.mjs ws://127.0.0.1:8080/ws-api/v3 KEYFILE      Binance's: logs on, then the account and its events

import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const hmac = (secret, text) => createHmac("sha256", secret).update(text).digest("hex");

/** Mobee's log-in: the text of `api` is what is signed, so it is written once. */
export function logIn(keyId, secret) {
  const api = JSON.stringify({ public_key: keyId, timestamp: Date.now() });
  return `{"method":"login","api":${api},"hmac":"${hmac(secret, api)}"}`;
}

/** One of Binance's signed messages: all parameters but the signature, sorted by name. Send numbers as the text you want them to be. */
export function signed(keyId, secret, id, method, params = {}) {
  const all = { ...params, apiKey: keyId, timestamp: Date.now() };
  const payload = Object.keys(all)
    .sort()
    .map((name) => `${name}=${all[name]}`)
    .join("&");
  return JSON.stringify({ id, method, params: { ...all, signature: hmac(secret, payload) } });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [url, keyFile] = process.argv.slice(2);
  const key = JSON.parse(await readFile(keyFile, "utf8"));
  const messages = url.includes("/ws-api/")
    ? [
        signed(key.key_id, key.secret, 1, "session.logon"),
        JSON.stringify({ id: 2, method: "account.status" }),
        JSON.stringify({ id: 3, method: "userDataStream.subscribe" }),
      ]
    : [logIn(key.key_id, key.secret), JSON.stringify({ method: "subscribe", events: ["BL", "PO.ALL"] })];
  const socket = new WebSocket(url);
  socket.onopen = () => messages.forEach((message) => socket.send(message));
  socket.onmessage = (event) => console.log(event.data);
  socket.onclose = (event) => {
    if (event.code !== 1000 && event.code !== 1001) {
      console.error(`closed: ${event.code} ${event.reason}`);
      process.exitCode = 1;
    }
  };
}
