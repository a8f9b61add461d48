// Factors: add, name and remove them. Whatever needs a proof with an existing factor asks for it first.

import { call, picture, Refused } from "./api.js";
import { clearErrors, hide, say, showError, showRefusal, whileBusy } from "./forms.js";
import { copy, download } from "./page.js";
import * as passkeys from "./passkeys.js";
import { challenge, codeError, prove } from "./stepup.js";
import { problem, text } from "./texts.js";

const pageError = document.getElementById("page-error");
const stepUpCard = document.getElementById("step-up-card");
const panel = stepUpCard.querySelector("[data-step-up]");
const passkeyForm = document.getElementById("passkey-form");
const totpForm = document.getElementById("totp-form");
const enrol = document.getElementById("totp-enrol");
const confirmForm = document.getElementById("totp-confirm");
const hasFactors = document.querySelector("[data-factor]") !== null;

/** Prove it first when there is a factor to prove it with; the first factor needs only the fresh login. */
async function withProof(intent, what, act) {
  if (!hasFactors) return act(null);
  const first = await challenge(intent);
  stepUpCard.hidden = false;
  stepUpCard.querySelector("#step-up-what strong").textContent = what;
  stepUpCard.scrollIntoView({ block: "start" });
  panel.querySelector("h2").focus();
  try {
    return await new Promise((resolve, reject) => {
      document.getElementById("cancel-step-up").onclick = () => reject(new DOMException("", "AbortError"));
      prove({ panel, intent, first, act, onOther: reject }).then(resolve, reject);
    });
  } finally {
    stepUpCard.hidden = true;
  }
}

function submitting(form, work) {
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    clearErrors(form);
    hide(pageError);
    whileBusy(form, work).catch((error) => refuse(form, error));
  });
}

/** Beside the field where there is one to be blamed, else above everything. */
function refuse(form, error) {
  if (error instanceof DOMException) {
    if (error.name !== "AbortError") {
      say(pageError, text(`passkey.register.${error.name}`) ?? text(`passkey.${error.name}`) ?? text("passkey.failed"));
      pageError.focus();
    }
  } else if (error instanceof Refused && form && error.errors.length) {
    showRefusal(form, error, pageError);
  } else if (error instanceof Refused && form === confirmForm && error.problem.code === "step_up_failed") {
    showError(form, "code", problem(error.problem))?.focus();
  } else if (error instanceof Refused) {
    say(pageError, problem(error.problem));
    if (error.problem.code === "login_too_old") pageError.append(" ", freshLogin());
    pageError.focus();
  } else {
    throw error;
  }
}

function freshLogin() {
  const link = document.createElement("a");
  link.href = "/login/start?again=1&return_to=/security";
  link.textContent = text("again");
  return link;
}

function added(answer) {
  if (!answer.recovery_codes?.length) return location.reload();
  for (const place of document.querySelectorAll("#first-steps, #add-passkey, #add-totp, #factors-card, #codes-card")) place.hidden = true;
  const list = document.getElementById("recovery-codes");
  list.replaceChildren(
    ...answer.recovery_codes.map((code) => {
      const item = document.createElement("li");
      item.textContent = code;
      return item;
    }),
  );
  document.getElementById("new-codes").hidden = false;
  document.getElementById("new-codes").scrollIntoView({ block: "start" });
  document.getElementById("new-codes-heading").focus();
  const all = `${answer.recovery_codes.join("\n")}\n`;
  document.getElementById("copy-codes").onclick = () => copy(all, list);
  document.getElementById("download-codes").onclick = () => download("recovery-codes.txt", all, "text/plain");
  const leaving = (event) => event.preventDefault();
  addEventListener("beforeunload", leaving);
  const done = () => {
    removeEventListener("beforeunload", leaving);
    list.replaceChildren();
    location.replace(document.getElementById("new-codes").dataset.next);
  };
  document.getElementById("codes-done").onclick = done;
  addEventListener("pagehide", () => list.replaceChildren());
}

if (passkeyForm && !passkeys.possible) {
  passkeyForm.hidden = true;
  const sorry = document.createElement("p");
  sorry.textContent = text("passkey.unsupported");
  passkeyForm.after(sorry);
}

submitting(passkeyForm, async () => {
  const name = passkeyForm.elements.name.value;
  const options = await withProof({ action: "add_factor", kind: "passkey" }, text("adding_passkey"), (stepUp) =>
    call("POST", "/api/v1/factors/passkeys/options", { name, step_up: stepUp }),
  );
  added(await call("POST", "/api/v1/factors/passkeys", await passkeys.register(options)));
});

let enrolling = null;

submitting(totpForm, async () => {
  const name = totpForm.elements.name.value;
  enrolling = await withProof({ action: "add_factor", kind: "totp" }, text("adding_totp"), (stepUp) =>
    call("POST", "/api/v1/factors/totp", { name, step_up: stepUp }),
  );
  document.getElementById("totp-secret").textContent = enrolling.secret.replace(/(.{4})(?=.)/g, "$1 ");
  const qr = document.getElementById("totp-qr");
  qr.src = URL.createObjectURL(await picture("/security/qr", { otpauth_uri: enrolling.otpauth_uri }));
  qr.onload = () => URL.revokeObjectURL(qr.src);
  document.getElementById("totp-link").href = enrolling.otpauth_uri;
  totpForm.hidden = true;
  enrol.hidden = false;
  document.getElementById("totp-scan").focus();
});

submitting(confirmForm, async () => {
  const code = confirmForm.elements.code.value.replace(/\s/g, "");
  const wrong = codeError(code);
  if (wrong) return void showError(confirmForm, "code", wrong)?.focus();
  added(await call("POST", `/api/v1/factors/totp/${enrolling.id}/confirm`, { code }));
});

for (const button of document.querySelectorAll("[data-remove]")) {
  button.addEventListener("click", async () => {
    hide(pageError);
    const factor = button.dataset.remove;
    try {
      await withProof({ action: "remove_factor", factor_id: factor }, text("removing", { name: button.dataset.name }), (stepUp) =>
        call("DELETE", `/api/v1/factors/${factor}`, { step_up: stepUp }),
      );
      location.reload();
    } catch (error) {
      refuse(null, error);
    }
  });
}

document.getElementById("renew-codes")?.addEventListener("click", async () => {
  hide(pageError);
  try {
    const renew = (stepUp) => call("POST", "/api/v1/recovery-codes", { step_up: stepUp });
    added(await withProof({ action: "renew_recovery_codes" }, text("renewing_codes"), renew));
  } catch (error) {
    refuse(null, error);
  }
});

addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
