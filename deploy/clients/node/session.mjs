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

/** Why a message was refused: by the gate in its member `gerbang`, by the exchange in `error` or `message`; undefined when it was not. */
export function refusal(answer) {
  const told = JSON.parse(answer);
  if (!(told.gerbang || told.error || told.status === "error")) return undefined;
  return told.gerbang?.detail ?? told.error?.msg ?? told.message ?? answer;
}

function fail(why) {
  console.error(why);
  process.exitCode = 1;
}

/** Logs in, then subscribes, and prints what comes until the session ends. */
function run(url, key) {
  if (!key.secret) return fail("this example signs with a secret (HMAC-SHA256), and the key file has none; sign.mjs shows Ed25519 and RSA");
  const binance = url.includes("/ws-api/");
  const first = binance ? signed(key.key_id, key.secret, 1, "session.logon") : logIn(key.key_id, key.secret);
  const then = binance
    ? [JSON.stringify({ id: 2, method: "account.status" }), JSON.stringify({ id: 3, method: "userDataStream.subscribe" })]
    : [JSON.stringify({ method: "subscribe", events: ["BL", "PO.ALL"] })];
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(first);
  socket.onmessage = ({ data }) => {
    console.log(data);
    const why = refusal(data);
    if (why) {
      fail(why);
      socket.close();
    } else while (then.length) socket.send(then.shift()); // logged in
  };
  socket.onerror = ({ message }) => fail(`no session: ${message || url}`);
  // 1008: the key was deleted or revoked, its account frozen, or it expired.
  socket.onclose = ({ code, reason }) => {
    if (code !== 1000 && code !== 1001 && !process.exitCode) fail(`closed: ${code} ${reason}`);
  };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [url, keyFile] = process.argv.slice(2);
  if (!keyFile) fail("node session.mjs URL KEYFILE");
  else run(url, JSON.parse(await readFile(keyFile, "utf8")));
}
