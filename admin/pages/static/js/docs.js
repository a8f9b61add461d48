// The page of reference: sends what is in a form to this site, by the token alone; a session's cookie does not travel.

const token = document.getElementById("token");

async function send(form) {
  const shown = form.querySelector("pre");
  const path = new URL(form.elements.path.value, location.origin);
  const headers = token.value ? { Authorization: `Bearer ${token.value}` } : {};
  const body = form.elements.body?.value;
  if (body) headers["Content-Type"] = "application/json";
  shown.hidden = false;
  if (path.origin !== location.origin || !path.pathname.startsWith("/api/")) {
    shown.textContent = "/api/…";
    return;
  }
  try {
    const answer = await fetch(path, { method: form.dataset.try, headers, body, credentials: "omit" });
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

for (const form of document.querySelectorAll("form[data-try]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
}
