// What the user wishes of answers; remembered by the browser, but for the key.

import { model } from "./server.js";

const $ = (id) => document.getElementById(id);
const DEFAULTS = { detail: "auto", length: "512", temperature: "0", theme: "auto", system: "", schema: "" };

export function start() {
  for (const [id, value] of Object.entries(DEFAULTS)) {
    $(id).value = localStorage.getItem(id) ?? value;
    $(id).addEventListener("input", () => localStorage.setItem(id, $(id).value));
  }
  $("key").value = sessionStorage.getItem("key") ?? "";
  $("key").addEventListener("input", () => sessionStorage.setItem("key", $("key").value));
  $("theme").addEventListener("input", paint);
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("settings-button").addEventListener("click", () => {
    $("settings").hidden = !$("settings").hidden;
    $("settings-button").ariaExpanded = String(!$("settings").hidden);
  });
  paint();
}

const paint = () => { document.documentElement.dataset.theme = $("theme").value; };

/** As fields of a request. */
export function wishes() {
  const fields = {
    model: model(),
    max_tokens: Number($("length").value) || 512,
    temperature: Number($("temperature").value) || 0,
  };
  const schema = $("schema").value.trim();
  if (schema) fields.response_format = { type: "json_schema", json_schema: { name: "answer", schema: parse(schema) } };
  return fields;
}

function parse(schema) {
  try {
    return JSON.parse(schema);
  } catch (error) {
    throw new Error(`the JSON Schema in the settings is no JSON: ${error.message}`);
  }
}

/** A line about what an answer cost. */
export function speed(timings) {
  const tokens = `${timings.predicted_n} tokens`;
  const rate = timings.predicted_per_second ? `, ${timings.predicted_per_second.toFixed(0)} per second` : "";
  return `first token after ${(timings.ttft_ms / 1000).toFixed(2)} s, ${tokens}${rate}`;
}
