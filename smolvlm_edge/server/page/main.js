// Puts the page together.

import * as chat from "./chat.js";
import * as live from "./live.js";
import * as server from "./server.js";
import * as settings from "./settings.js";

const $ = (id) => document.getElementById(id);
const VIEWS = ["chat", "live"];

function show(view) {
  for (const each of VIEWS) {
    $(each).hidden = each !== view;
    $(`show-${each}`).toggleAttribute("aria-current", each === view);
    if (each === view) $(`show-${each}`).setAttribute("aria-current", "page");
  }
  if (view !== "live") live.stop();
}

async function list() {
  try {
    const chosen = $("model").value;
    $("model").replaceChildren(...(await server.models()).map((name) => new Option(name, name)));
    if (chosen) $("model").value = chosen;
  } catch (error) {
    $("model").replaceChildren(new Option(error.message, ""));
  }
}

settings.start();
chat.start();
live.start();
VIEWS.forEach((view) => $(`show-${view}`).addEventListener("click", () => show(view)));
$("key").addEventListener("change", list);
list();
