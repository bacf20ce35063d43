// The list of jobs of all tenants.

import { bar, html, labels, show, state, table } from "./dom.js";
import { ran, time } from "./format.js";
import { follow, read } from "./server.js";

const STATES = ["QUEUED", "RUNNING", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"];

function where(job) {
  const { queue_position: ahead, phase, fraction } = job.progress;
  if (job.failure) return html("span", { class: "problem" }, job.failure.reason);
  if (job.state === "QUEUED") return ahead === null ? "waits" : `${ahead} ahead`;
  return [bar(fraction, `job ${job.id}`), html("span", { class: "soft" }, `${Math.round(fraction * 100)} % ${phase}`)];
}

function row(job, nowMs) {
  const address = `#/jobs/${encodeURIComponent(job.tenant)}/${encodeURIComponent(job.id)}`;
  return [
    html("a", { href: address, "data-key": job.id }, job.id),
    job.tenant,
    job.model,
    [state(job.state), job.n_notes > 0 && html("div", { class: "mark" }, `${job.n_notes} notes`)],
    where(job),
    ran(job, nowMs) ?? "",
    labels(job.labels),
    time(job.created_ms),
  ];
}

function form(search) {
  const go = (event) => {
    event?.preventDefault();
    const chosen = [...new FormData(box)].filter(([, value]) => value !== "");
    location.hash = `#/jobs?${new URLSearchParams(chosen)}`;
  };
  const option = (name) => html("option", { value: name, selected: search.get("state") === name }, name === "" ? "any" : name);
  const text = (name, words) => html("label", {}, words, html("input", { name, value: search.get(name) ?? "", autocomplete: "off", change: go }));
  const box = html("form", { submit: go, role: "search", "aria-label": "Filter jobs" },
    html("label", {}, "State", html("select", { name: "state", change: go }, ["", ...STATES].map(option))),
    text("tenant", "Tenant"),
    text("model", "Model"),
    html("button", { type: "submit" }, "Filter"));
  return box;
}

/** Shows a page of jobs and reads it again whenever something happened, until the signal. */
export async function jobs({ place, signal, told }, search) {
  document.title = "Jobs · zkinfer";
  const list = html("div", { class: "panel wide", id: "jobs" }, html("p", { class: "soft" }, "Loading …"));
  const pages = html("p", {});
  show(place, html("h1", {}, "Jobs"), form(search), list, pages);
  const refresh = async () => {
    const { jobs: found, next, now_ms: nowMs } = await read(`jobs?${search}`, signal);
    const heads = ["Job", "Tenant", "Model", "State", "Progress", "Ran", "Labels", "Created"];
    show(list, table("Newest first.", heads, found.map((job) => row(job, nowMs)), "No job is like this."));
    const older = new URLSearchParams(search);
    older.set("after", next ?? "");
    const newest = new URLSearchParams(search);
    newest.delete("after");
    show(pages,
      search.get("after") && html("a", { href: `#/jobs?${newest}`, "data-key": "newest" }, "Newest"), " ",
      next && html("a", { href: `#/jobs?${older}`, "data-key": "older" }, "Older"));
  };
  await refresh();
  await steadily(refresh, signal, told);
}

/** Calls `refresh` after every event of the service, one call at a time; an event during a call leads to one more. */
export async function steadily(refresh, signal, told) {
  let isBusy = false;
  let isStale = false;
  let failed = null;
  const each = async () => {
    isStale = true;
    if (isBusy) return;
    isBusy = true;
    while (isStale && !signal.aborted) {
      isStale = false;
      await refresh().catch((error) => { failed = error; });
    }
    isBusy = false;
    if (failed && !signal.aborted) told("reconnecting");
    else if (!signal.aborted) told("live");
    failed = null;
  };
  await follow("live", signal, { each, told });
}
