// The last step before something is done: ask for a challenge for one intent, prove it with a factor, do it.

import { call, Refused } from "./api.js";
import { clearErrors, hide, say, whileBusy } from "./forms.js";
import * as passkeys from "./passkeys.js";
import { problem, text } from "./texts.js";

/** A challenge for an intent. Throws Refused when the intent itself is not allowed: nothing has been proved or spent then. */
export function challenge(intent) {
  return call("POST", "/api/v1/step-up", { intent });
}

/**
 * Let the customer prove it, as often as needed, until `act` succeeds.
 * `panel` is the macro step_up; `intent` is what is confirmed; `first` its challenge; `act(stepUp)` does it and may throw Refused.
 * Resolves to what `act` gives. A challenge works once, so each try takes a fresh one; a refusal that has nothing to do with the
 * proof is handed to `onOther`.
 */
export function prove({ panel, intent, first, act, onOther }) {
  let ready = first;
  const alert = panel.querySelector("[data-step-up-error]");
  const proved = Promise.withResolvers ? Promise.withResolvers() : withResolvers();

  async function attempt(form, proof) {
    clearErrors(panel);
    hide(alert);
    await whileBusy(panel, async () => {
      try {
        const current = await usable();
        const body = await proof(current);
        ready = null;
        proved.resolve(await act({ challenge_id: current.challenge_id, ...body }));
      } catch (error) {
        refuse(form, error);
      }
    });
    focusError(form);
  }

  async function usable() {
    if (!ready || Date.parse(ready.expires_at) - Date.now() < 5_000) ready = await challenge(intent);
    return ready;
  }

  function refuse(form, error) {
    if (error instanceof Refused) {
      if (!["step_up_failed", "step_up_required"].includes(error.problem.code)) return onOther ? onOther(error) : say(alert, problem(error.problem));
      const place = form?.querySelector("[data-error]");
      if (!place) return say(alert, problem(error.problem));
      const ofRecovery = form.matches("[data-recovery]") ? text(`recovery.${error.problem.reason}`) : undefined;
      say(place, ofRecovery ?? problem(error.problem));
      form.querySelector("input").setAttribute("aria-invalid", "true");
    } else if (error instanceof DOMException) {
      say(alert, text(`passkey.${error.name}`) ?? text("passkey.failed"));
    } else {
      throw error;
    }
  }

  function focusError(form) {
    (form?.querySelector("[aria-invalid]") ?? (alert.hidden ? null : alert))?.focus();
  }

  const button = panel.querySelector("[data-passkey]");
  // What the server takes for this very intent: a recovery code, for one, never makes a key.
  for (const element of panel.querySelectorAll("[data-method]")) element.hidden = !first.methods.includes(element.dataset.method);
  if (button) {
    if (!passkeys.possible) {
      button.hidden = true;
      if (!first.methods.includes("totp")) say(alert, text("passkey.unsupported"));
    }
    button.onclick = () => attempt(null, async (current) => ({ passkey: await passkeys.assert(current.passkey) }));
  }
  withCode(panel.querySelector("[data-totp]"), "totp", (typed) => typed.replace(/\s/g, ""), codeError);
  withCode(panel.querySelector("[data-recovery]"), "recovery_code", (typed) => typed.trim(), codeMissing);

  function withCode(form, name, clean, errorOf) {
    if (!form) return;
    const input = form.querySelector("input");
    form.onsubmit = (event) => {
      event.preventDefault();
      const typed = clean(input.value);
      const wrong = errorOf(typed);
      if (wrong) {
        clearErrors(panel);
        say(form.querySelector("[data-error]"), wrong);
        input.setAttribute("aria-invalid", "true");
        input.focus();
        return;
      }
      input.value = "";
      attempt(form, async () => ({ [name]: typed }));
    };
  }

  return proved.promise;
}

const codeMissing = (typed) => (typed ? undefined : text("errors.required"));

/** What is wrong with the form of an authenticator app's code; undefined if it has six digits. Half a code is no attempt: it is not sent. */
export const codeError = (typed) => (typed && !/^[0-9]{6}$/.test(typed) ? text("errors.six_digits") : codeMissing(typed));

function withResolvers() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}
