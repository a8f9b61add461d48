// Calls to the JSON API: the CSRF token goes with each, and a refusal comes back as an exception.

import { released } from "./forms.js";
import { text } from "./texts.js";

const token = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

/** A refusal: `problem` is the body of the answer (RFC 9457), `errors` its field errors. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.code);
    this.problem = problem;
    this.errors = problem.errors ?? [];
  }
}

/** The JSON of the answer (null for 204). Throws Refused, also when the service cannot be reached. */
export async function call(method, path, body) {
  const answer = await send(method, path, body);
  return answer.status === 204 ? null : answer.json();
}

/** The answer's body as a Blob: for pictures. */
export async function picture(path, body) {
  return (await send("POST", path, body)).blob();
}

async function send(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      credentials: "same-origin",
      cache: "no-store",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    await released();
    throw new Refused({ code: "offline", detail: text("problems.offline") });
  }
  await released(); // whatever the answer changes on the page
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({ code: "unknown" }));
  problem.wait_s = Number(answer.headers.get("Retry-After")) || null;
  if (answer.status === 401) {
    // The session ended while the page was open: the login leads back here.
    dispatchEvent(new Event("sessionend"));
    location.assign(`/login?return_to=${encodeURIComponent(location.pathname)}`);
  }
  throw new Refused(problem);
}
