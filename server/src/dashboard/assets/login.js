// The field for the key.

import { html, show } from "./dom.js";
import { key } from "./server.js";

/** Asks for a key; `done` is called when there is one. */
export function login(place, problem, done) {
  document.title = "Sign in · zkinfer";
  // What is no printable ASCII cannot be sent in a header.
  const input = html("input", {
    type: "password", id: "key", name: "key", autocomplete: "off", required: true, size: 44, pattern: "\\s*[!-~]+\\s*", title: "letters, digits and signs without spaces",
  });
  const submit = (event) => {
    event.preventDefault();
    key.set(input.value.trim());
    done();
  };
  show(place,
    html("h1", {}, "Sign in"),
    html("p", {}, "The dashboard shows the jobs of all tenants: it needs an API key or a token with the scope admin. It is kept until this tab is closed."),
    html("form", { submit }, html("label", { for: "key" }, "API key or token", input), html("button", { type: "submit" }, "Sign in")),
    key.get() && html("p", { class: "problem", role: "alert" }, problem));
  input.focus();
}
