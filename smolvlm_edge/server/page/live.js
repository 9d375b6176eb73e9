// Captions of what the camera sees.

import { openCamera, still } from "./pictures.js";
import * as server from "./server.js";
import { speed, wishes } from "./settings.js";

const $ = (id) => document.getElementById(id);
const KEPT = 50;
let running = null;

export function start() {
  $("live-form").addEventListener("submit", (event) => { event.preventDefault(); running ? stop() : run(); });
}

export function stop() {
  running?.abort();
  running = null;
  $("live-button").textContent = "Start";
}

async function run() {
  const control = running = new AbortController();
  $("live-button").textContent = "Stop";
  try {
    const closeCamera = await openCamera($("camera"));
    control.signal.addEventListener("abort", closeCamera);
    if (control.signal.aborted) return closeCamera();
    while (!control.signal.aborted) {
      const started = performance.now();
      await caption(control.signal);
      const pause = Number($("interval").value) - (performance.now() - started);
      if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
    }
  } catch (error) {
    if (error.name !== "AbortError") $("caption").textContent = error.message;
    if (running === control) stop();
  }
}

async function caption(signal) {
  const content = [still($("camera")).part, { type: "text", text: $("live-question").value }];
  const { choices, timings } = await server.answer({ ...wishes(), messages: [{ role: "user", content }] }, signal);
  const text = choices[0].message.content;
  $("live-speed").textContent = speed(timings);
  if (text === $("caption").textContent) return; // a screen reader need not say it again
  $("caption").textContent = text;
  const item = document.createElement("li");
  item.textContent = text;
  $("captions").prepend(item);
  while ($("captions").children.length > KEPT) $("captions").lastChild.remove();
}
