// Sign in each dialect, with a secret or a private key: node sign.mjs URL KEYFILE DIALECT METHOD TARGET [BODY]
//
// KEYFILE is {"key_id", "secret"} as downloaded, or {"key_id", "private_key"} with the PEM of your own Ed25519 or RSA key.

import { createHash, createHmac, createPrivateKey, randomUUID, sign as signWith } from "node:crypto";
import { readFile } from "node:fs/promises";

function sign(key, message) {
  if (!key.private_key) return createHmac("sha256", key.secret).update(message).digest();
  const pem = createPrivateKey(key.private_key);
  return signWith(pem.asymmetricKeyType === "ed25519" ? null : "sha256", Buffer.from(message), pem);
}

// Path and query, which may contain a "?" itself; undefined without one.
function halves(target) {
  const mark = target.indexOf("?");
  return mark < 0 ? [target] : [target.slice(0, mark), target.slice(mark + 1)];
}

const dialects = {
  mobee(key, method, target, body) {
    const timestamp = String(Date.now());
    const message = [method, target.split("?", 1)[0], timestamp, ...(body ? [body] : [])].join("\n");
    const signature = sign(key, message).toString("base64");
    return [target, { "X-API-Key": key.key_id, "X-Request-Timestamp": timestamp, "X-Request-Signature": signature }, body];
  },

  // The parameters are in the query or, as a form, in the body.
  binance(key, method, target, body) {
    const [path, query = ""] = halves(target);
    const payload = [body || query, `timestamp=${Date.now()}`].filter(Boolean).join("&");
    const raw = sign(key, (body ? query : "") + payload);
    const signature = key.private_key ? encodeURIComponent(raw.toString("base64")) : raw.toString("hex");
    const headers = { "X-MBX-APIKEY": key.key_id };
    if (!body) return [`${path}?${payload}&signature=${signature}`, headers, ""];
    return [target, { ...headers, "Content-Type": "application/x-www-form-urlencoded" }, `${payload}&signature=${signature}`];
  },

  rfc9421(key, method, target, body) {
    const [path, query] = halves(target);
    const covered = { "@method": method, "@path": path };
    const headers = {};
    if (query !== undefined) covered["@query"] = `?${query}`;
    if (body) headers["Content-Digest"] = covered["content-digest"] = `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
    const names = Object.keys(covered).map((name) => `"${name}"`).join(" ");
    const parameters = `(${names});created=${Math.floor(Date.now() / 1000)};keyid="${key.key_id}";nonce="${randomUUID()}"`;
    const lines = Object.entries(covered).map(([name, value]) => `"${name}": ${value}`);
    const signature = sign(key, [...lines, `"@signature-params": ${parameters}`].join("\n")).toString("base64");
    return [target, { ...headers, "Signature-Input": `sig=${parameters}`, Signature: `sig=:${signature}:` }, body];
  },
};

const [url, keyFile, dialect, method, target, body = ""] = process.argv.slice(2);
if (!target || !Object.hasOwn(dialects, dialect)) {
  console.error("node sign.mjs URL KEYFILE mobee|binance|rfc9421 METHOD TARGET [BODY]");
  process.exit(1);
}
const key = JSON.parse(await readFile(keyFile, "utf8"));
const [to, headers, content] = dialects[dialect](key, method, target, body);
const answer = await fetch(url + to, { method, headers, ...(content && { body: content }) });
const text = await answer.text();
if (answer.ok) console.log(text);
else {
  console.error(`${answer.status} ${text}`); // "detail" says why, and what to do
  process.exitCode = 1;
}
