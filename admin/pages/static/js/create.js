// Create a key: form, summary with proof, secret. Three stages of one page, so that the secret exists in this page's memory alone.

import { call, Refused } from "./api.js";
import { clearErrors, hide, say, showError, showRefusal, whileBusy } from "./forms.js";
import { fileName, stored } from "./labels.js";
import { download } from "./page.js";
import { challenge, prove } from "./stepup.js";
import { fieldError, text } from "./texts.js";

const form = document.getElementById("key-form");
const formError = document.getElementById("form-error");
const panel = document.querySelector("[data-step-up]");
const rows = [...document.querySelectorAll(".address-rows > li")];
const addressesField = document.getElementById("addresses");
const warning = document.getElementById("unrestricted-trading");
const add = document.getElementById("add-address");

function show(stage) {
  for (const section of document.querySelectorAll("[data-stage]")) section.hidden = section.dataset.stage !== stage;
  document.querySelector(`[data-stage="${stage}"] h1`).focus();
  scrollTo(0, 0);
}

const chosen = (name) => new FormData(form).get(name);
const inputOf = (row) => row.querySelector("input");
const shownRows = () => rows.filter((row) => !row.hidden);

/** The intent as the API takes it. Empty rows count for nothing; `positions` says which row each address came from. */
function draft() {
  const data = new FormData(form);
  const whitelisted = data.get("ip_access") === "whitelisted";
  const filled = whitelisted ? shownRows().filter((row) => inputOf(row).value.trim()) : [];
  const algorithm = data.get("algorithm");
  return {
    positions: filled.map((row) => rows.indexOf(row)),
    intent: {
      action: "create_key",
      label: data.get("label"),
      scopes: data.getAll("scopes"),
      ip_access: data.get("ip_access"),
      ip_allowlist: filled.map((row) => inputOf(row).value.trim()),
      algorithm,
      public_key: algorithm === "hmac-sha256" ? null : data.get("public_key").trim() || null,
      expires_in_days: data.get("expires_in_days") ? Number(data.get("expires_in_days")) : null,
    },
  };
}

/** The API numbers the addresses that were sent; the form numbers its rows. */
function atRows(errors, positions) {
  return errors.map((error) => ({
    ...error,
    field: error.field.replace(/^ip_allowlist\[(\d+)\]$/, (whole, index) => (index in positions ? `ip_allowlist[${positions[index]}]` : whole)),
  }));
}

function arrange() {
  const whitelisted = chosen("ip_access") === "whitelisted";
  addressesField.hidden = !whitelisted;
  warning.hidden = whitelisted || !new FormData(form).getAll("scopes").includes("trade");
  document.getElementById("public-key-field").hidden = chosen("algorithm") === "hmac-sha256";
  document.getElementById("expires-danger").hidden = warning.hidden;
  if (!expiresChosen) expires.value = warning.hidden ? "" : expires.dataset.whenDangerous;
  add.hidden = shownRows().length === rows.length;
  for (const button of addressesField.querySelectorAll("[data-clear-address]")) button.hidden = shownRows().length === 1;
}

function nextRow() {
  const empty = shownRows().find((row) => !inputOf(row).value.trim());
  if (empty) return empty;
  const hidden = rows.find((row) => row.hidden);
  if (hidden) hidden.hidden = false;
  arrange();
  return hidden;
}

// What was entered survives "back", a reload and the choice of another language in the history's own state, and a login in between in the
// tab's storage, for the same account and read once. None of it is secret: a private key that was pasted by mistake is not kept.
const DRAFT = "draft";
const account = form.dataset.account;
const expires = document.getElementById("expires_in_days");
let expiresChosen = Boolean(expires.value);

function entered() {
  const data = new FormData(form);
  const pem = data.get("public_key");
  return {
    label: data.get("label"),
    scopes: data.getAll("scopes"),
    ip_access: data.get("ip_access"),
    addresses: shownRows().map((row) => inputOf(row).value),
    algorithm: data.get("algorithm"),
    public_key: pem.includes("PUBLIC KEY") && !pem.includes("PRIVATE") ? pem : "",
    expires: expiresChosen ? expires.value : null,
  };
}

function enter(kept) {
  form.elements.label.value = kept.label;
  for (const box of form.querySelectorAll("[name=scopes]")) box.checked = kept.scopes.includes(box.value);
  for (const name of ["ip_access", "algorithm"]) for (const choice of form.elements[name]) choice.checked = choice.value === kept[name];
  rows.forEach((row, index) => {
    inputOf(row).value = kept.addresses[index] ?? "";
    row.hidden = index >= Math.max(kept.addresses.length, 1);
  });
  form.elements.public_key.value = kept.public_key;
  expiresChosen = kept.expires !== null;
  if (expiresChosen) expires.value = kept.expires;
  if (kept.algorithm !== "hmac-sha256") document.getElementById("advanced").open = true;
}

const remember = () => history.replaceState({ ...history.state, [DRAFT]: entered() }, "");

function keptDraft() {
  const across = JSON.parse(sessionStorage.getItem(DRAFT) ?? "null");
  sessionStorage.removeItem(DRAFT);
  return history.state?.[DRAFT] ?? (across?.account === account ? across.entered : null);
}

const before = keptDraft();
if (before) enter(before);
form.addEventListener("input", remember);
form.addEventListener("click", remember);
expires.addEventListener("change", () => (expiresChosen = true));
addEventListener("sessionend", () => sessionStorage.setItem(DRAFT, JSON.stringify({ account, entered: entered() })));

// Another language, without leaving this place of the history.
document.querySelector(".languages").addEventListener("submit", async (event) => {
  if (document.querySelector("[data-stage=secret]:not([hidden])")) return;
  event.preventDefault();
  const data = new FormData(event.target);
  data.set("language", event.submitter.value);
  remember();
  await fetch(event.target.action, { method: "POST", body: new URLSearchParams(data), redirect: "manual" }).catch(() => null);
  location.reload();
});

// Live checks: the server's own rules, for the address that was just left. What comes late says nothing.
let checks = 0;

async function checkAddress(row) {
  const marked = [row, ...rows.filter((other) => other.querySelector("[data-error]:not([hidden])"))];
  if (!inputOf(row).value.trim()) return;
  const mine = ++checks;
  const { intent, positions } = draft();
  try {
    const answer = await call("POST", "/keys/check-addresses", { ip_allowlist: intent.ip_allowlist });
    if (mine !== checks) return;
    for (const other of marked) clearErrors(other);
    const errors = atRows(answer.errors, positions).filter((error) => marked.some((other) => other.dataset.field === error.field));
    for (const error of errors) showError(form, error.field, fieldError(error));
  } catch {
    // The form is checked again when it is sent.
  }
}

for (const row of rows) {
  inputOf(row).addEventListener("change", () => checkAddress(row));
  row.querySelector("[data-clear-address]").addEventListener("click", () => {
    const values = shownRows().filter((other) => other !== row).map((other) => inputOf(other).value);
    rows.forEach((other, index) => {
      inputOf(other).value = values[index] ?? "";
      other.hidden = index >= Math.max(values.length, 1);
      clearErrors(other);
    });
    arrange();
    inputOf(rows[Math.max(values.length - 1, 0)]).focus();
  });
}

add.addEventListener("click", () => inputOf(nextRow()).focus());

document.getElementById("use-current").addEventListener("click", ({ currentTarget }) => {
  const note = document.getElementById("current-note");
  if (currentTarget.dataset.unusable) return (note.textContent = currentTarget.dataset.unusable);
  const already = shownRows().find((row) => inputOf(row).value.trim() === currentTarget.dataset.address);
  const row = already ?? nextRow();
  if (!row) return (note.textContent = text("errors.too_many"));
  clearErrors(row);
  inputOf(row).value = currentTarget.dataset.address;
  inputOf(row).focus();
  checkAddress(row);
});

form.addEventListener("change", arrange);
arrange();

form.addEventListener("submit", (event) => {
  event.preventDefault();
  checks += 1;
  clearErrors(form);
  hide(formError);
  const { intent, positions } = draft();
  whileBusy(form, async () => {
    let ready = null;
    let refused = null;
    try {
      ready = await challenge(intent);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refused = error;
      refused.errors = atRows(refused.errors, positions);
    }
    return { ready, refused };
  }).then(({ ready, refused }) => {
    const unconfirmed = !warning.hidden && !document.getElementById("confirm_unrestricted").checked;
    const input = unconfirmed ? showError(form, "confirm_unrestricted", text("errors.confirm_unrestricted")) : null;
    if (refused) showRefusal(form, refused, formError);
    else if (input) input.focus();
    else confirm(intent, ready);
  });
});

async function confirm(intent, ready) {
  summarise(intent);
  show("confirm");
  const created = await prove({
    panel,
    intent,
    first: ready,
    act: (stepUp) => make(intent, stepUp),
    onOther: (refused) => {
      show("form");
      showRefusal(form, refused, formError);
    },
  });
  reveal(created);
}

/** Until the secret is on the screen, the list is to know that it may never have been: the page may be left, or the answer lost. */
async function make(intent, stepUp) {
  if (intent.algorithm === "hmac-sha256") {
    const unseen = { account, label: stored(intent.label), after: Number(form.dataset.newest), sent_ms: Date.now() };
    sessionStorage.setItem("unseen", JSON.stringify(unseen));
  }
  try {
    return await call("POST", "/api/v1/keys", { ...withoutAction(intent), step_up: stepUp });
  } catch (error) {
    if (error instanceof Refused && error.problem.code !== "offline" && error.problem.code !== "unknown") sessionStorage.removeItem("unseen");
    throw error;
  }
}

function withoutAction({ action, ...members }) {
  return members;
}

document.getElementById("edit").addEventListener("click", () => show("form"));

/** What is about to be made, from the very intent that the challenge covers. */
function summarise(intent) {
  const value = {
    label: stored(intent.label),
    scopes: intent.scopes.map((scope) => text(`scope.${scope}`)).join(", "),
    ip: intent.ip_access === "whitelisted" ? intent.ip_allowlist.join(", ") : text("unrestricted"),
    algorithm: text(`algorithm.${intent.algorithm}`),
    public_key: intent.public_key,
    expires: form.elements.expires_in_days.selectedOptions[0].textContent,
  };
  for (const row of document.querySelectorAll("[data-summary]")) {
    row.querySelector("dd").textContent = value[row.dataset.summary] ?? "";
    row.hidden = value[row.dataset.summary] === null;
  }
  document.getElementById("summary-danger").hidden = warning.hidden;
}

function reveal({ key, secret }) {
  const id = document.getElementById("new-id");
  const shown = document.getElementById("new-secret");
  const examples = document.querySelectorAll("#try pre code");
  const done = document.getElementById("done");
  const saved = document.getElementById("saved");
  id.textContent = key.id;
  shown.textContent = secret ?? "";
  for (const element of document.querySelectorAll("[data-hmac]")) element.hidden = !secret;
  for (const element of document.querySelectorAll("[data-public-key]")) element.hidden = Boolean(secret);
  const file = fileName(key.label);
  const templates = [...document.querySelectorAll(`[data-example="${key.algorithm}"]`)];
  document.getElementById("try").hidden = templates.length === 0;
  for (const template of templates) {
    const shownText = template.content.textContent.replace("KEY_ID", key.id).replace("KEY_FILE", file);
    document.getElementById(template.dataset.place).textContent = shownText;
  }
  done.disabled = Boolean(secret);
  saved.onchange = () => (done.disabled = !saved.checked);
  document.getElementById("download").onclick = () => {
    const content = { key_id: key.id, secret, scopes: key.scopes, dialect: "mobee" };
    download(file, `${JSON.stringify(content, null, 2)}\n`, "application/json");
  };
  // The form behind must not be one "back" away from being sent again, nor the secret from being seen again.
  form.reset();
  history.replaceState(null, "");
  show("secret");
  sessionStorage.removeItem("unseen");
  const warn = (event) => {
    if (secret && !saved.checked) event.preventDefault();
  };
  const forget = () => {
    removeEventListener("beforeunload", warn);
    secret = null;
    for (const place of [id, shown, ...examples]) place.textContent = "";
  };
  addEventListener("beforeunload", warn);
  // Also when the browser keeps the page for its back button.
  addEventListener("pagehide", forget);
  done.onclick = () => {
    forget();
    location.replace("/keys");
  };
}

addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
