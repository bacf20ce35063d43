// The page: which part is shown, and what happens when the service wants a key.

import { html, show } from "./dom.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { login } from "./login.js";
import { models } from "./models.js";
import { overview } from "./overview.js";
import { NoOperator, key } from "./server.js";

const place = document.getElementById("content");
const connection = document.getElementById("connection");
const logout = document.getElementById("logout");
const WORDS = { live: "● live", final: "", reconnecting: "○ reconnecting …" };

let current = new AbortController();

/** The part that an address names, with its arguments. */
function parse(address) {
  const [path, query] = address.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  const search = new URLSearchParams(query);
  if (name === "jobs" && rest.length === 2) return { page: "jobs", open: (context) => job(context, rest[0], rest[1]) };
  if (name === "jobs") return { page: "jobs", open: (context) => jobs(context, search) };
  if (name === "models") return { page: "models", open: models };
  return { page: "overview", open: overview };
}

function target() {
  try {
    return parse(location.hash);
  } catch {
    // A percent sign that begins nothing.
    return parse("");
  }
}

async function open() {
  current.abort();
  const mine = (current = new AbortController());
  const { page, open: part } = target();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  logout.hidden = !key.get();
  connection.textContent = "";
  const told = (how) => { if (!mine.signal.aborted) connection.textContent = WORDS[how]; };
  try {
    await part({ place, signal: mine.signal, told });
  } catch (error) {
    if (mine.signal.aborted) return;
    mine.abort();
    connection.textContent = "";
    if (error instanceof NoOperator) return login(place, error.message, open);
    show(place, html("h1", {}, "This cannot be shown"), html("p", { class: "problem", role: "alert" }, error.message));
  }
}

logout.addEventListener("click", () => { key.forget(); open(); });
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); place.focus(); });
addEventListener("hashchange", open);
open();
