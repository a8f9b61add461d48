// The page of reference: sends what is in a form to this site, by the token alone if there is one, else by the session of whoever is signed in.

const token = document.getElementById("token");
const csrf = document.querySelector('meta[name="csrf-token"]').content;

async function send(form) {
  const shown = form.querySelector("pre");
  const path = new URL(form.elements.path.value, location.origin);
  const headers = token.value ? { Authorization: `Bearer ${token.value}` } : csrf ? { "X-CSRF-Token": csrf } : {};
  const credentials = csrf && !token.value ? "same-origin" : "omit";
  const body = form.elements.body?.value;
  if (body) headers["Content-Type"] = "application/json";
  shown.hidden = false;
  if (path.origin !== location.origin || !path.pathname.startsWith("/api/")) {
    shown.textContent = "/api/…";
    return;
  }
  try {
    const answer = await fetch(path, { method: form.dataset.try, headers, body, credentials });
    const text = await answer.text();
    let content = text;
    try {
      content = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // Not JSON: shown as it is.
    }
    shown.textContent = `${answer.status} ${answer.statusText}\n${content}`;
  } catch (error) {
    shown.textContent = String(error);
  }
}

document.querySelector("[data-session]").hidden = !csrf;

for (const form of document.querySelectorAll("form[data-try]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
}
