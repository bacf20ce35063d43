// One job: what it is, how far it is, and where its time went.

import { bar, facts, html, labels, show, state, table } from "./dom.js";
import { bytes, duration, ran, time } from "./format.js";
import { gantt } from "./gantt.js";
import { follow } from "./server.js";

const FINAL = ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"];

function about({ job, proof_bytes: proofBytes, peak_host_bytes: peakBytes }) {
  const { failure, progress } = job;
  return facts([
    ["State", state(job.state)],
    ["Tenant", job.tenant],
    ["Model", job.model],
    ["Priority", job.priority],
    ["Labels", Object.keys(job.labels).length > 0 ? labels(job.labels) : null],
    ["Batch", job.batch],
    ["Created", time(job.created_ms)],
    ["Started", time(job.started_ms)],
    ["Ended", time(job.ended_ms)],
    ["Ran", ran(job, Date.now())],
    ["Deadline", time(job.deadline_ms)],
    ["Ahead in the queue", job.state === "QUEUED" ? progress.queue_position : null],
    ["Left", FINAL.includes(job.state) ? null : duration(progress.eta_ms)],
    ["Proof", bytes(proofBytes)],
    ["Peak memory", bytes(peakBytes)],
    ["Failure", failure && html("span", { class: "problem" }, `${failure.reason}: ${failure.message}`)],
  ]);
}

function stages({ job }) {
  const row = (stage) => [stage.name, bar(stage.total === 0 ? 0 : stage.done / stage.total, stage.name), `${stage.done} of ${stage.total}`, duration(stage.elapsed_ms) ?? ""];
  return table("Steps done of each stage.", ["Stage", "Progress", "Done", "Time"], job.progress.stages.map(row), "No stage is planned yet.");
}

function layers({ tasks }) {
  const shares = new Map();
  for (const task of tasks) {
    const share = shares.get(task.step) ?? { done: 0, running: 0, total: 0 };
    share.total += 1;
    share.done += task.state === "DONE" ? 1 : 0;
    share.running += task.state === "RUNNING" ? 1 : 0;
    shares.set(task.step, share);
  }
  const row = ([step, { done, running, total }]) => [step, bar(done / total, `tasks of ${step}`), `${done} of ${total}`, running];
  return table("Tasks of the job's graph by kind of step.", ["Step", "Progress", "Done", "Running"], [...shares].map(row), "The job has no tasks yet.");
}

function tasks({ tasks: all }) {
  const attempts = (task) => task.attempts.map((attempt) => html("div", {},
    `${attempt.worker}${attempt.device && ` · ${attempt.device}`} · `,
    attempt.outcome || "running",
    attempt.ended_ms !== null && ` after ${duration(attempt.ended_ms - attempt.started_ms)}`));
  const row = (task) => [html("strong", {}, task.name), task.step, state(task.state), task.needs.join(", "), attempts(task)];
  return html("details", {}, html("summary", { "data-key": "tasks" }, `All ${all.length} tasks`),
    html("div", { class: "wide" }, table("In the order of the graph.", ["Task", "Step", "State", "Needs", "Attempts"], all.map(row), "None.")));
}

/** What processes wrote before they died with a task, as text. */
function lastWords({ tasks: all }) {
  const dead = all.flatMap((task) => task.attempts.map((attempt, index) => ({ task, attempt, index })).filter(({ attempt }) => attempt.last_words));
  const row = ({ task, attempt, index }) => [task.name, index + 1, attempt.worker, html("pre", {}, attempt.last_words)];
  return table("Of processes that died, oldest attempt of each task first.", ["Task", "Attempt", "Worker", "What it wrote last"], dead.map(row), "None died.");
}

function notes({ notes: all }) {
  const row = (note) => [note.task, note.attempt, html("span", { class: "mark" }, note.outcome), note.message];
  return table("What happened to tasks beside success, oldest first.", ["Task", "Attempt", "What", "Why"], all.map(row), "Nothing went wrong.");
}

/** Shows a job until it is final, or until the signal. */
export async function job({ place, signal, told }, tenant, id) {
  document.title = `Job ${id} · zkinfer`;
  const heading = html("h1", {}, `Job ${id}`);
  show(place, heading, html("p", { class: "soft" }, "Loading …"));
  const parts = new Map();
  const part = (name, ...content) => {
    if (!parts.has(name)) parts.set(name, html("section", { "aria-label": name }, html("h2", {}, name), html("div", { class: "panel wide" })));
    show(parts.get(name).lastElementChild, ...content);
  };
  const each = (page) => {
    const isOpen = parts.get("Tasks")?.querySelector("details")?.open ?? false;
    const scrolled = parts.get("Where and when")?.querySelector(".panel > .wide")?.scrollLeft ?? 0;
    const { fraction, phase } = page.job.progress;
    const share = page.job.state === "SUCCEEDED" ? 1 : fraction;
    part("Job", bar(share, "the job"), html("p", { class: "soft", id: "share" }, `${Math.round(share * 100)} % ${FINAL.includes(page.job.state) ? "" : phase}`), about(page));
    // A job of several tasks tells of each whole task, a job of one of the stages within.
    part("Layers and steps", page.tasks.length > 1 ? layers(page) : stages(page));
    part("Where and when", gantt(page, Date.now()));
    part("Notes", notes(page));
    part("Last words", lastWords(page));
    part("Tasks", tasks(page));
    if (!parts.get("Job").isConnected) show(place, heading, ...parts.values());
    parts.get("Tasks").querySelector("details").open = isOpen;
    const wide = parts.get("Where and when").querySelector(".panel > .wide");
    if (wide) wide.scrollLeft = scrolled;
  };
  const isLast = (page) => FINAL.includes(page.job.state);
  await follow(`jobs/${encodeURIComponent(tenant)}/${encodeURIComponent(id)}/live`, signal, { each, isLast, told });
}
