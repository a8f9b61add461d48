// The list: search and pages when there are many keys, and the notice about one whose secret was never seen.

import { text } from "./texts.js";

const ON_A_PAGE = 10;
const UNDER_WAY_MS = 120_000; // how long a key may take to be made behind a page that was left
const list = document.getElementById("keys");
const cards = [...(list?.children ?? [])];
const search = document.getElementById("search");
const pager = document.getElementById("pager");
let page = 0;

function arrange() {
  const wanted = document.getElementById("search-for").value.trim().toLowerCase();
  const found = cards.filter((card) => card.dataset.search.toLowerCase().includes(wanted));
  const pages = Math.max(Math.ceil(found.length / ON_A_PAGE), 1);
  page = Math.min(page, pages - 1);
  const shown = new Set(found.slice(page * ON_A_PAGE, (page + 1) * ON_A_PAGE));
  for (const card of cards) card.hidden = !shown.has(card);
  document.getElementById("search-found").textContent = wanted ? text("found", { count: found.length }) : "";
  document.getElementById("page-of").textContent = text("page_of", { page: page + 1, pages });
  pager.hidden = pages === 1;
  for (const button of pager.querySelectorAll("button")) button.disabled = !(page + Number(button.dataset.turn) in [...Array(pages)]);
}

if (search) {
  search.hidden = false;
  search.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", () => {
    page = 0;
    arrange();
  });
  pager.addEventListener("click", ({ target }) => {
    if (!target.dataset.turn) return;
    page += Number(target.dataset.turn);
    arrange();
    list.scrollIntoView({ block: "start" });
  });
  arrange();
}

const unseen = JSON.parse(sessionStorage.getItem("unseen") ?? "null");
const forget = () => sessionStorage.removeItem("unseen");

if (unseen && document.getElementById("overview").dataset.account === unseen.account) {
  const lost = cards.find((card) => card.querySelector("h2").textContent === unseen.label && Number(card.dataset.created) > unseen.after);
  if (lost) {
    const notice = document.getElementById("unseen");
    notice.querySelector("[data-unseen-label]").textContent = unseen.label;
    notice.querySelector("[data-unseen-delete]").href = `/keys/${lost.dataset.key}/delete`;
    notice.querySelector("[data-unseen-dismiss]").addEventListener("click", () => {
      forget();
      notice.hidden = true;
    });
    notice.hidden = false;
  } else if (Date.now() - unseen.sent_ms > UNDER_WAY_MS) {
    forget();
  }
} else if (unseen) {
  forget();
}
