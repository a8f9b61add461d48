// Sign requests in Node 18 and newer:
//
//   import { Gerbang } from "./gerbang.mjs";
//   const gate = await Gerbang.fromFile("http://127.0.0.1:8080", "key.json");
//   const answer = await gate.call("GET", "/v1/wallets");
//
// Or from a shell: node gerbang.mjs URL KEYFILE METHOD PATH [BODY]

import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

export class Gerbang {
  #secret;

  constructor(url, keyId, secret) {
    this.url = url.replace(/\/$/, "");
    this.keyId = keyId;
    this.#secret = secret;
  }

  /** With the key file that the page of the new key lets you download. */
  static async fromFile(url, path) {
    const key = JSON.parse(await readFile(path, "utf8"));
    if (!key.secret) throw new Error("this example signs with a secret (HMAC-SHA256), and the key file has none; sign.mjs shows Ed25519 and RSA");
    return new Gerbang(url, key.key_id, key.secret);
  }

  /** The headers that sign a request; body is the text that will be sent. */
  headers(method, target, body = "") {
    const timestamp = String(Date.now());
    const path = target.split("?", 1)[0];
    const message = [method, path, timestamp, ...(body ? [body] : [])].join("\n");
    return {
      "X-API-Key": this.keyId,
      "X-Request-Timestamp": timestamp,
      "X-Request-Signature": createHmac("sha256", this.#secret).update(message).digest("base64"),
      ...(body ? { "Content-Type": "application/json" } : {}),
    };
  }

  /** Send a signed request; body is anything JSON can hold. Throws the gate's reason when it is refused. */
  async call(method, target, body) {
    const text = body === undefined ? "" : JSON.stringify(body);
    const answer = await fetch(this.url + target, {
      method,
      headers: this.headers(method, target, text),
      ...(text ? { body: text } : {}),
    });
    const content = await answer.json();
    if (!answer.ok) {
      throw Object.assign(new Error(`${answer.status} ${content.code ?? ""}: ${content.detail ?? JSON.stringify(content)}`), { content });
    }
    return content;
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [url, keyFile, method, target, body] = process.argv.slice(2);
  try {
    if (!target) throw new Error("node gerbang.mjs URL KEYFILE METHOD PATH [BODY]");
    const gate = await Gerbang.fromFile(url, keyFile);
    console.log(JSON.stringify(await gate.call(method, target, body && JSON.parse(body))));
  } catch (error) {
    console.error(error.cause?.message ?? error.message); // fetch names what failed in the cause alone
    process.exitCode = 1;
  }
}
