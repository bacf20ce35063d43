// The list of models of all tenants.

import { bar, html, labels, show, state, table } from "./dom.js";
import { duration, time } from "./format.js";
import { steadily } from "./jobs.js";
import { read } from "./server.js";

function row(model) {
  const progress = model.state === "COMPILING" && [bar(model.progress.fraction, `model ${model.id}`), html("span", { class: "soft" }, model.progress.phase)];
  return [
    [html("strong", {}, model.id), model.display_name && html("div", { class: "soft" }, model.display_name)],
    model.tenant,
    [state(model.state), progress, model.failure && html("div", { class: "problem" }, `${model.failure.reason}: ${model.failure.message}`)],
    model.n_layers ?? "",
    model.n_parameters?.toLocaleString() ?? "",
    duration(model.proof_ms) ?? "",
    [model.parameter_set, html("div", { class: "soft" }, model.is_public ? "public weights" : "private weights")],
    labels(model.labels),
    time(model.created_ms),
    html("a", { href: `#/jobs?${new URLSearchParams({ tenant: model.tenant, model: model.id })}`, "data-key": `${model.tenant}/${model.id}` }, "jobs"),
  ];
}

/** Shows the newest models, and older ones on demand, until the signal. */
export async function models({ place, signal, told }) {
  document.title = "Models · zkinfer";
  const list = html("div", { class: "panel wide", id: "models" }, html("p", { class: "soft" }, "Loading …"));
  let size = 50;
  const more = html("button", { type: "button", hidden: true, click: () => { size = 200; refresh(); } }, "Show more");
  show(place, html("h1", {}, "Models"), list, more);
  const heads = ["Model", "Tenant", "State", "Layers", "Parameters", "One proof", "Parameter set", "Labels", "Created", "Jobs"];
  const refresh = async () => {
    const { models: found, next } = await read(`models?size=${size}`, signal);
    show(list, table("Newest first.", heads, found.map(row), "There are no models."));
    more.hidden = next === null || size === 200;
  };
  await refresh();
  await steadily(refresh, signal, told);
}
