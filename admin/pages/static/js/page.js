// On every page: copying, times in the customer's own zone, and the account menu.

import { text } from "./texts.js";

const toast = document.getElementById("toast");
let clearing;

/** Say something in passing. */
export function tell(sentence) {
  toast.textContent = sentence;
  clearTimeout(clearing);
  clearing = setTimeout(() => (toast.textContent = ""), 4_000);
}

/** Copy, and say so. Web views without clipboard access get a selection to copy from. */
export async function copy(value, element) {
  try {
    await navigator.clipboard.writeText(value);
    tell(text("copied"));
  } catch {
    if (element) getSelection().selectAllChildren(element);
    tell(text("copy_failed"));
  }
}

/** Hand a text to the customer as a file; it never leaves the browser. */
export function download(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-copy-from]");
  if (button?.dataset.copy) copy(button.dataset.copy, button.parentElement.querySelector("code"));
  else if (button) {
    const source = document.getElementById(button.dataset.copyFrom);
    copy(source.textContent, source);
  }
  const menu = document.querySelector(".account[open]");
  if (menu && !menu.contains(event.target)) menu.removeAttribute("open");
});

document.addEventListener("keydown", (event) => {
  const menu = document.querySelector(".account[open]");
  if (event.key === "Escape" && menu) {
    menu.removeAttribute("open");
    menu.querySelector("summary").focus();
  }
});

// What the page before this one did.
const done = { "#deleted": "deleted", "#others-ended": "others_ended" }[location.hash];
if (done) {
  history.replaceState(history.state, "", location.pathname + location.search);
  setTimeout(() => tell(text(done)), 100);
}

// The server writes the exchange's zone; who is elsewhere reads their own, and the exchange's on hovering.
const parts = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
const format = new Intl.DateTimeFormat(document.documentElement.lang, parts);
const clock = new Intl.DateTimeFormat(document.documentElement.lang, { hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
const elsewhere = format.resolvedOptions().timeZone !== document.documentElement.dataset.timeZone;
for (const time of elsewhere ? document.querySelectorAll("time[datetime]") : []) {
  time.title = time.textContent;
  time.textContent = ("clock" in time.dataset ? clock : format).format(new Date(time.dateTime));
}
