// Errors beside their fields, and one place for those that belong to none.

import { fieldError, problem, text } from "./texts.js";

/** Remove every error of a form. */
export function clearErrors(form) {
  for (const place of form.querySelectorAll("[data-error]")) hide(place);
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

/** Show what is wrong with one field, which is found by its data-field. Returns its first input, or null when there is no such field. */
export function showError(form, name, sentence) {
  const field = form.querySelector(`[data-field="${CSS.escape(name)}"]`);
  if (!field) return null;
  const own = [...field.querySelectorAll("[data-error]")].filter((place) => place.closest("[data-field]") === field);
  const place = own[0];
  place.textContent = place.hidden ? sentence : `${place.textContent} ${sentence}`;
  place.hidden = false;
  const inputs = [...field.querySelectorAll("input, textarea, select")].filter((input) => input.closest("[data-field]") === field);
  for (const input of inputs) input.setAttribute("aria-invalid", "true");
  return inputs[0] ?? field.querySelector("input, textarea, select");
}

/** Show every field error of a refusal, each beside its field, and move to the topmost. What belongs to no field goes to `rest`. */
export function showRefusal(form, refused, rest) {
  const homeless = [];
  const wrong = [...form.querySelectorAll("[aria-invalid]")]; // shown before, by the page's own checks
  for (const error of refused.errors ?? []) {
    const names = [error.field, error.field.replace(/\[\d+\]$/, "")];
    const sentence = fieldError(error);
    const input = names.reduce((found, name) => found ?? showError(form, name, sentence), null);
    if (input === null) homeless.push(sentence);
    else wrong.push(input);
  }
  if (!refused.errors?.length) homeless.push(problem(refused.problem ?? {}));
  if (homeless.length) say(rest, homeless.join(" "));
  wrong.sort((one, other) => (one.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_PRECEDING ? 1 : -1));
  const target = wrong[0] ?? rest;
  target.closest("details")?.setAttribute("open", "");
  target.focus();
}

/** Fill and show an element that is a live region. */
export function say(place, sentence) {
  place.textContent = sentence;
  place.hidden = false;
}

export function hide(place) {
  place.textContent = "";
  place.hidden = true;
}

// An error goes when its field is changed; what the server thinks of the new entry it says when it is asked again.
document.addEventListener("input", ({ target }) => {
  for (let field = target.closest(".field"); field; field = field.parentElement.closest(".field")) forgive(field);
  const rest = target.form?.querySelector("#form-error");
  if (rest) hide(rest);
});

function forgive(field) {
  for (const place of field.querySelectorAll("[data-error]")) if (place.closest(".field") === field) hide(place);
  for (const input of field.querySelectorAll("[aria-invalid]")) if (input.closest(".field") === field) input.removeAttribute("aria-invalid");
}

// What appears moves what is below it: a button that moves away between press and release is not clicked.
let pressing = false;
addEventListener("pointerdown", () => (pressing = true), { capture: true });
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => (pressing = false)), { capture: true });

/** Wait until nothing on the page is being pressed and the click has been dealt with. */
export async function released() {
  while (pressing) {
    await new Promise((resolve) => {
      for (const end of ["pointerup", "pointercancel"]) addEventListener(end, resolve, { capture: true, once: true });
    });
    await new Promise((resolve) => setTimeout(resolve));
  }
}

let submitter = null;
document.addEventListener("submit", (event) => (submitter = event.submitter), { capture: true });

/** Run `work` with the form's buttons disabled, so that nothing is sent twice; the one that was pressed says that it is at work. */
export async function whileBusy(form, work) {
  const buttons = [...form.querySelectorAll("button")].filter((button) => !button.disabled);
  const pressed = buttons.find((button) => button === document.activeElement) ?? buttons.find((button) => button === submitter);
  const said = pressed?.textContent;
  for (const button of buttons) button.disabled = true;
  form.setAttribute("aria-busy", "true");
  if (pressed) {
    pressed.classList.add("busy");
    pressed.textContent = text("busy");
  }
  try {
    return await work();
  } finally {
    for (const button of buttons) button.disabled = false;
    form.removeAttribute("aria-busy");
    if (pressed) {
      pressed.classList.remove("busy");
      pressed.textContent = said;
    }
  }
}
