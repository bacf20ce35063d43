// Attempts at a job's tasks over time: a row for each device of a worker, a bar for each attempt.

import { html, svg } from "./dom.js";
import { duration } from "./format.js";

const STEPS = ["layer", "commit", "witness", "bind", "leaf", "join", "outer", "prove"];
const LEFT = 150;
const WIDTH = 1000;
const LANE = 22;

/** Names of the tasks that the job's end waited for: from the last to end, each time to the one of its needs that ended last. */
export function criticalPath(tasks) {
  const end = (task) => Math.max(0, ...task.attempts.filter((attempt) => attempt.outcome === "DONE").map((attempt) => attempt.ended_ms));
  const byName = new Map(tasks.map((task) => [task.name, task]));
  const latest = (some) => some.filter((task) => task && end(task) > 0).reduce((a, b) => (a && end(a) >= end(b) ? a : b), null);
  const path = new Set();
  for (let task = latest(tasks); task && !path.has(task.name); task = latest(task.needs.map((name) => byName.get(name)))) path.add(task.name);
  return path;
}

/** Every attempt as a bar; `attempt` counts from 1. */
export function bars({ tasks, notes }, nowMs) {
  const critical = criticalPath(tasks);
  const fallbacks = new Map(notes.filter((note) => note.outcome === "FALLBACK").map((note) => [`${note.task} ${note.attempt}`, note.message]));
  return tasks.flatMap((task) => task.attempts.map((attempt, index) => ({
    task: task.name,
    step: task.step,
    attempt: index + 1,
    row: attempt.device ? `${attempt.worker} · ${attempt.device}` : attempt.worker,
    start: attempt.started_ms,
    end: attempt.ended_ms ?? Math.max(nowMs, attempt.started_ms),
    isOpen: attempt.ended_ms === null,
    outcome: attempt.outcome || "running",
    isBad: attempt.ended_ms !== null && !["DONE", "RELEASED", "CANCELLED"].includes(attempt.outcome),
    isCritical: critical.has(task.name) && attempt.outcome === "DONE",
    fallback: fallbacks.get(`${task.name} ${index + 1}`) ?? null,
  })));
}

/** Puts bars of a row that overlap below one another; answers how many lanes that takes. */
function lay(row) {
  const ends = [];
  for (const bar of row.sort((a, b) => a.start - b.start)) {
    const free = ends.findIndex((end) => end <= bar.start);
    bar.lane = free < 0 ? ends.length : free;
    ends[bar.lane] = bar.end;
  }
  return ends.length;
}

function words(bar) {
  const again = bar.attempt > 1 ? `, attempt ${bar.attempt}` : "";
  const fallback = bar.fallback === null ? "" : `; fell back: ${bar.fallback}`;
  const critical = bar.isCritical ? "; on the critical path" : "";
  return `${bar.task} (${bar.step})${again} on ${bar.row}: ${bar.outcome}, ${duration(bar.end - bar.start)}${fallback}${critical}`;
}

function colour(step) {
  const known = STEPS.indexOf(step);
  return known >= 0 ? known : STEPS.length - 1;
}

function drawn(bar, x, top, tell) {
  const kinds = [["retry", bar.attempt > 1], ["failed", bar.isBad], ["critical", bar.isCritical], ["open", bar.isOpen], ["fallback", bar.fallback !== null]];
  const label = words(bar);
  const y = top + bar.lane * LANE + 2;
  return svg("g", {
    class: ["bar", ...kinds.filter(([, is]) => is).map(([name]) => name)].join(" "), tabindex: 0, role: "img", "aria-label": label,
    "data-key": `bar ${bar.task} ${bar.attempt}`, focus: () => tell(label), mouseenter: () => tell(label),
  },
  svg("title", {}, label),
  svg("rect", { class: `step${colour(bar.step)}`, x: x(bar.start), y, width: Math.max(3, x(bar.end) - x(bar.start)), height: LANE - 4, rx: 2 }),
  bar.fallback !== null && svg("text", { x: x(bar.start) + 3, y: y + LANE - 9 }, "F"));
}

function axis(start, span, x, height) {
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => start + span * share);
  return ticks.map((at, index) => [
    svg("line", { class: "rule", x1: x(at), x2: x(at), y1: 18, y2: height }),
    svg("text", { x: x(at), y: 12, "text-anchor": index === 0 ? "start" : index === 4 ? "end" : "middle" }, duration(at - start)),
  ]);
}

function legend(all) {
  const key = (name, words) => html("li", {}, svg("svg", { width: 14, height: 12, "aria-hidden": "true" }, svg("rect", { class: name, x: 1, y: 1, width: 12, height: 10 })), words);
  const steps = [...new Set(all.map((bar) => bar.step))].map((step) => key(`step${colour(step)}`, step));
  return html("ul", { class: "legend" }, steps,
    key("key-critical", "critical path"), key("key-retry", "another attempt"), key("key-failed", "failed or lost"), html("li", {}, html("strong", {}, "F"), " fell back to another device"));
}

/** The chart, its legend, and a line that says what has the keyboard or the pointer. */
export function gantt(page, nowMs) {
  const all = bars(page, nowMs);
  if (all.length === 0) return html("p", { class: "soft" }, "No worker has begun yet.");
  const start = Math.min(...all.map((bar) => bar.start));
  const span = Math.max(1, Math.max(...all.map((bar) => bar.end)) - start);
  const x = (at) => Math.round((LEFT + (WIDTH - LEFT - 10) * ((at - start) / span)) * 10) / 10;
  const rows = new Map();
  for (const bar of all) rows.set(bar.row, [...(rows.get(bar.row) ?? []), bar]);
  const text = html("p", { id: "bar-text", class: "soft" });
  const tell = (label) => { text.textContent = label; };
  const drawing = [];
  let top = 24;
  for (const [name, row] of [...rows].sort(([a], [b]) => a.localeCompare(b))) {
    const lanes = lay(row);
    const shown = name.length > 22 ? `${name.slice(0, 21)}…` : name;
    drawing.push(svg("text", { class: "row", x: 0, y: top + 15 }, svg("title", {}, name), shown), row.map((bar) => drawn(bar, x, top, tell)),
      svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: top + lanes * LANE + 3, y2: top + lanes * LANE + 3 }));
    top += lanes * LANE + 6;
  }
  return [
    html("div", { class: "wide" }, svg("svg", { class: "gantt", width: WIDTH, height: top, viewBox: `0 0 ${WIDTH} ${top}`, role: "group",
      "aria-label": `${all.length} attempts on ${rows.size} devices over ${duration(span)}` }, axis(start, span, x, top), drawing)),
    text,
    legend(all),
  ];
}
