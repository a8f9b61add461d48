// The sentences of the chosen language, put into the page by the server. No sentence is written in a script.

const all = JSON.parse(document.getElementById("texts").textContent);

/** A sentence by its path ("errors.not_public"), with {name} replaced from values; undefined when there is none. */
export function text(path, values = {}) {
  const found = path.split(".").reduce((node, part) => node?.[part], all);
  return typeof found === "string" ? found.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole)) : undefined;
}

/** A sentence with a number in it, in the form that the language has for that number. */
function counted(path, count) {
  return text(`${path}.${new Intl.PluralRules(document.documentElement.lang).select(count)}`, { count });
}

/** What to say about one field error of the API, in the language of the page. */
export function fieldError({ field, code, message }) {
  const name = field.replace(/\[\d+\]/g, "");
  return all.errors[`${name}.${code}`] ?? all.errors[code] ?? message;
}

/** What to say about a refusal as a whole. */
export function problem({ code, reason, detail, wait_s: wait }) {
  if (code === "rate_limited" && wait) return wait < 90 ? counted("wait_seconds", wait) : counted("wait_minutes", Math.ceil(wait / 60));
  return all.problems[`${code}.${reason}`] ?? all.problems[code] ?? detail ?? all.problems.unknown;
}
