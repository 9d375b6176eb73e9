// A conversation about pictures.

import { Picture, Tiles, openCamera, still } from "./pictures.js";
import * as server from "./server.js";
import { speed, wishes } from "./settings.js";

const $ = (id) => document.getElementById(id);
const messages = [];
let attached = [], running = null, closeCamera = () => {};

export function start() {
  $("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
  $("stop").addEventListener("click", () => running?.abort());
  $("clear").addEventListener("click", clear);
  $("add").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => { attach($("files").files); $("files").value = ""; });
  $("detail").addEventListener("change", showAttached);
  $("photo").addEventListener("click", photograph);
  $("take-photo").addEventListener("click", () => { add(still($("finder"))); $("shutter").close(); });
  $("cancel-photo").addEventListener("click", () => $("shutter").close());
  $("shutter").addEventListener("close", () => closeCamera());
  document.addEventListener("paste", (event) => attach(event.clipboardData.files, event));
  document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").hidden = false; });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
  document.addEventListener("drop", (event) => { $("drop").hidden = true; attach(event.dataTransfer.files, event); });
}

async function attach(files, event) {
  const media = [...files].filter((file) => /^(image|video)\//.test(file.type));
  if (files.length) event?.preventDefault();
  if (files.length > media.length) fail(new Error("only pictures and videos can be asked about"));
  for (const file of media) await Picture.read(file).then(add, fail);
}

function add(picture) {
  attached.push(picture);
  showAttached();
  $("question").focus();
}

function showAttached() {
  $("attachments").replaceChildren(...attached.map((picture) => {
    const item = document.createElement("li"), remove = document.createElement("button");
    const note = document.createElement("span");
    Object.assign(remove, { type: "button", textContent: "×", ariaLabel: `Remove ${picture.name}` });
    remove.addEventListener("click", () => { attached = attached.filter((other) => other !== picture); showAttached(); });
    picture.measure().then((line) => { note.textContent = line; }, (error) => { note.textContent = error.message; });
    item.append(picture.figure(), remove, note);
    return item;
  }));
}

async function photograph() {
  $("shutter").showModal();
  try {
    closeCamera = await openCamera($("finder"));
  } catch (error) {
    $("shutter").close();
    fail(error);
  }
}

async function send() {
  const text = $("question").value.trim() || (attached.length ? "Describe this image." : "");
  if (!text || running) return;
  const pictures = attached, turn = show("user", text, pictures);
  messages.push({ role: "user", content: [...pictures.map((picture) => picture.part), { type: "text", text }] });
  $("question").value = "";
  attached = [];
  showAttached();
  if (await answer(layTiles(turn, pictures))) return;
  messages.pop(); // what was not answered can be asked again
  turn.remove();
  $("question").value ||= text;
  attached = [...pictures, ...attached];
  showAttached();
}

/** Answers the last question; whether there is an answer, or the beginning of one. */
async function answer(tiles = () => {}) {
  const turn = show("assistant", ""), paragraph = turn.querySelector("p"), status = turn.querySelector(".speed");
  turn.classList.add("waiting");
  running = new AbortController();
  toggle(true);
  let text = "", timings;
  try {
    timings = await server.stream({ ...wishes(), messages: [...instructions(), ...messages] }, {
      signal: running.signal,
      onProgress: (line) => { status.textContent = line; tiles(line); },
      onText: (piece) => { text += piece; paragraph.textContent = text; scroll(); },
    });
    pretty(paragraph, text);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  }
  running = null;
  toggle(false);
  turn.classList.remove("waiting");
  tiles("done");
  if (!text) {
    turn.remove();
    return false;
  }
  messages.push({ role: "assistant", content: text });
  status.textContent = timings ? speed(timings) : "stopped";
  tools(turn, text);
  scroll();
  return true;
}

const instructions = () => ($("system").value.trim() ? [{ role: "system", content: $("system").value.trim() }] : []);

function show(role, text, pictures = []) {
  $("welcome")?.remove();
  const turn = document.createElement("article"), paragraph = document.createElement("p");
  turn.className = `turn ${role}`;
  turn.ariaLabel = role === "user" ? "You" : "The model";
  paragraph.textContent = text;
  if (pictures.length) {
    const row = document.createElement("div");
    row.className = "pictures";
    row.append(...pictures.map((picture) => picture.figure()));
    turn.append(row);
  }
  turn.append(paragraph);
  if (role === "assistant") {
    const row = document.createElement("div"), status = document.createElement("span");
    row.className = "tools";
    status.className = "speed";
    row.append(status);
    turn.append(row);
  }
  $("log").append(turn);
  scroll();
  return turn;
}

/** Tiles over the pictures of a turn; gives what shows how far the server is. */
function layTiles(turn, pictures) {
  const figures = [...turn.querySelectorAll("figure")];
  const tiles = pictures.flatMap((picture, index) =>
    picture.isVideo || !picture.grids[0] ? [] : [new Tiles(figures[index], picture.grids[0])]);
  return (line) => {
    const [, done] = /^tiles (\d+)\//.exec(line) ?? [];
    let left = done === undefined ? (/^tiles|^waiting/.test(line) ? 0 : Infinity) : Number(done);
    for (const each of tiles) {
      each.show(left);
      left = Math.max(0, left - each.count);
    }
  };
}

function tools(turn, text) {
  const copy = document.createElement("button"), again = document.createElement("button");
  copy.textContent = "Copy";
  copy.addEventListener("click", async () => { await navigator.clipboard?.writeText(text); copy.textContent = "Copied"; });
  again.textContent = "Again";
  again.addEventListener("click", () => {
    if (running || turn !== [...document.querySelectorAll(".assistant")].pop()) return;
    messages.pop();
    turn.remove();
    answer();
  });
  turn.querySelector(".tools").append(copy, again);
}

/** A JSON answer on lines of its own. */
function pretty(paragraph, text) {
  if (!$("schema").value.trim()) return;
  try {
    paragraph.textContent = JSON.stringify(JSON.parse(text), null, 2);
    paragraph.classList.add("json");
  } catch { /* it was cut off: shown as it came */ }
}

function fail(error) {
  const line = document.createElement("p");
  line.className = "error";
  line.setAttribute("role", "alert");
  line.textContent = error.message;
  $("welcome")?.remove();
  $("log").append(line);
  scroll();
}

function clear() {
  running?.abort();
  messages.length = 0;
  $("log").replaceChildren();
  $("question").focus();
}

function toggle(busy) {
  $("send").hidden = busy;
  $("stop").hidden = !busy;
}

const scroll = () => { $("log").scrollTop = $("log").scrollHeight; };
