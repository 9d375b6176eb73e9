// A page opened from disk (`Origin: null`) that asks as the webcam demonstrations for llama-server do: no model named,
// the text before the picture, a JPEG as data: URL, a new request every 500 ms unless one is under way.
// With PAGE it is that one, unchanged: ngxson/smolvlm-realtime-webcam's index.html.
// Usage: node webcam.mjs URL CHROMIUM [PAGE]; needs playwright-core.

import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, executablePath, given] = process.argv.slice(2);
const html = `<!doctype html><video id="camera" autoplay muted></video><canvas id="still"></canvas><p id="said"></p>
<script>
const camera = document.getElementById("camera"), canvas = document.getElementById("still");
let busy = false;
async function ask() {
  if (busy || !camera.videoWidth) return;
  busy = true;
  canvas.width = camera.videoWidth;
  canvas.height = camera.videoHeight;
  canvas.getContext("2d").drawImage(camera, 0, 0);
  const content = [{ type: "text", text: "What do you see?" },
    { type: "image_url", image_url: { url: canvas.toDataURL("image/jpeg", 0.8) } }];
  try {
    const response = await fetch("${url}/v1/chat/completions", { method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ max_tokens: 100, messages: [{ role: "user", content }] }) });
    document.getElementById("said").textContent = response.ok
      ? (await response.json()).choices[0].message.content : "error: " + (await response.text());
  } catch (error) { document.getElementById("said").textContent = "error: " + error.message; }
  busy = false;
}
navigator.mediaDevices.getUserMedia({ video: true }).then((stream) => { camera.srcObject = stream; });
setInterval(ask, 500);
</script>`;
const file = given ?? join(mkdtempSync(join(tmpdir(), "webcam-")), "index.html");
if (!given) writeFileSync(file, html);
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
const browser = await chromium.launch({ executablePath, args });
const page = await browser.newPage();
const statuses = [];
page.on("response", (response) => { if (response.url().startsWith(url)) statuses.push(response.status()); });
page.on("requestfailed", (request) => { statuses.push(request.failure().errorText); });
await page.goto(`file://${file}`);
if (given) {
  await page.waitForFunction(() => document.getElementById("videoFeed").videoWidth > 0);
  await page.fill("#baseURL", url);
  await page.click("#startButton");
}
const end = Date.now() + 60000;
while (statuses.length < 3 && Date.now() < end) await page.waitForTimeout(100);
const said = given ? await page.inputValue("#responseText") : await page.locator("#said").textContent();
await browser.close();
console.log(statuses, said);
assert.ok(statuses.length >= 3 && statuses.every((status) => status === 200));
assert.ok(said && !/error|Processing|Ready/i.test(said), said);
