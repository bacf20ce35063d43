// The front page: the queue, and what runs where.

import { chart, sample } from "./chart.js";
import { html, show, table } from "./dom.js";
import { duration, time } from "./format.js";
import { follow } from "./server.js";

function tiles(counts, words) {
  const entries = Object.entries(counts);
  if (entries.length === 0) return html("p", { class: "soft" }, `There are no ${words}.`);
  return html("dl", { class: "tiles" }, entries.map(([name, count]) => html("div", { class: "tile" }, html("dt", {}, name), html("dd", {}, count))));
}

function running(tasks, nowMs) {
  const name = (task) => (task.kind === "job"
    ? html("a", { href: `#/jobs/${encodeURIComponent(task.tenant)}/${task.id}`, "data-key": `task-${task.id}-${task.name}` }, `${task.tenant}/${task.id.slice(-8)}`)
    : `${task.tenant}/${task.id}`);
  return tasks.map((task) => html("div", {}, html("strong", {}, task.name), " of ", name(task), ` for ${duration(nowMs - task.started_ms)}`));
}

function workers({ workers: all, now_ms: nowMs }) {
  const row = (worker) => [
    [html("div", {}, worker.worker), worker.is_cordoned && html("div", { class: "mark" }, "cordoned: is given no tasks")],
    worker.devices.map((device) => html("div", {}, device)),
    worker.tasks.length > 0 ? running(worker.tasks, nowMs) : html("span", { class: "soft" }, "idle"),
    `${duration(nowMs - worker.seen_ms)} ago`,
    time(worker.opened_ms),
  ];
  return table("Sessions of workers, newest first.", ["Worker", "Devices", "Runs", "Seen", "Since"], all.map(row), "No worker has a session: queued jobs wait.");
}

/** Shows the service as it is, until the signal. */
export async function overview({ place, signal, told }) {
  document.title = "Overview · zkinfer";
  show(place, html("h1", {}, "Overview"), html("p", { class: "soft" }, "Loading …"));
  const each = (now) => {
    sample(now.now_ms, now.queue);
    show(place,
      html("h1", {}, "Overview"),
      html("section", { "aria-label": "Queue" }, html("h2", {}, "Queue"), chart(now.now_ms)),
      html("section", { "aria-label": "Workers" }, html("h2", {}, "Workers and devices"), html("div", { class: "panel wide", id: "workers" }, workers(now))),
      html("section", { "aria-label": "Jobs" }, html("h2", {}, "Jobs"), tiles(now.jobs, "jobs")),
      html("section", { "aria-label": "Models" }, html("h2", {}, "Models"), tiles(now.models, "models")));
  };
  await follow("live", signal, { each, told });
}
