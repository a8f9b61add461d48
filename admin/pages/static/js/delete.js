// Delete a key: its label typed, then a proof.

import { call, Refused } from "./api.js";
import { clearErrors, hide, say, showError, whileBusy } from "./forms.js";
import { meant } from "./labels.js";
import { challenge, prove } from "./stepup.js";
import { problem, text } from "./texts.js";

const card = document.getElementById("delete");
const form = document.getElementById("confirm-label");
const formError = document.getElementById("form-error");
const step = document.getElementById("confirm-step");
const { keyId, label } = card.dataset;
const intent = { action: "delete_key", key_id: keyId };

form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearErrors(form);
  hide(formError);
  if (!meant(form.elements.label.value, label)) {
    showError(form, "label", text("errors.other_label"))?.focus();
    return;
  }
  whileBusy(form, () => challenge(intent)).then(confirm, fail);
});

async function confirm(first) {
  form.hidden = true;
  step.hidden = false;
  step.querySelector("h2").focus();
  await prove({ panel: step, intent, first, act: (stepUp) => call("DELETE", `/api/v1/keys/${keyId}`, { step_up: stepUp }), onOther: fail });
  if (JSON.parse(sessionStorage.getItem("unseen") ?? "null")?.label === label) sessionStorage.removeItem("unseen");
  location.replace("/keys#deleted");
}

function fail(error) {
  if (!(error instanceof Refused)) throw error;
  form.hidden = false;
  step.hidden = true;
  say(formError, problem(error.problem));
  formError.focus();
}
