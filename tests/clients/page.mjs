// The page in headless Chromium: picture, stream, stop, schema, camera, live captions, axe-core.
// Usage: node page.mjs URL PICTURE CHROMIUM [FOLDER FOR SCREENSHOTS]; needs playwright-core and axe-core.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [url, picture, executablePath, shots] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
const browser = await chromium.launch({ executablePath, args });
const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, bypassCSP: false });
const page = await context.newPage();
const complaints = [];
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => assert.ok(/^(data|blob):/.test(request.url()) || request.url().startsWith(url), request.url()));

const shot = async (name) => { if (shots) await page.screenshot({ path: `${shots}/${name}.png` }); };
const answers = () => page.locator(".assistant:not(.waiting) p").allTextContents();
const answered = async (count) => {
  await page.waitForFunction((wanted) => document.querySelectorAll(".assistant .tools button").length === 2 * wanted, count);
  return (await answers()).at(-1);
};
async function accessible(what) {
  // in a world of its own: the page's policy lets no script in
  const session = await context.newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await session.send("Runtime.evaluate",
      { expression, contextId: executionContextId, awaitPromise: true, returnByValue: true });
    assert.ok(!exceptionDetails, JSON.stringify(exceptionDetails));
    return result.value;
  };
  await evaluate(axe + ";0");
  const found = await evaluate("axe.run().then(({ violations }) => violations.map(({ id, impact, nodes }) => [id, impact, nodes.map((n) => n.html)]))");
  assert.deepEqual(found.filter(([, impact]) => ["serious", "critical"].includes(impact)), [], what);
  return found;
}

await page.goto(url);
await page.waitForFunction(() => document.getElementById("model").value);
await shot("1-empty");
await accessible("empty");

// a file, asked about
await page.setInputFiles("#files", picture);
await page.waitForFunction(() => /tile/.test(document.querySelector("#attachments span")?.textContent));
await page.fill("#question", "Where is the blue star?");
await shot("2-attached");
await page.keyboard.press("Enter");
assert.equal(await answered(1), "The blue star is in the middle.");
assert.match(await page.locator(".assistant .speed").textContent(), /first token after [\d.]+ s, \d+ tokens/);
assert.equal(await page.locator(".user .tiles i.done").count(), 4);
await page.fill("#question", "Is there a red circle?");
await page.keyboard.press("Enter");
await answered(2);
await shot("3-answered");
await accessible("answered");

// a form
await page.click("#settings-button");
await page.fill("#schema", '{"type": "object", "properties": {"there": {"type": "boolean"}}, "required": ["there"], "additionalProperties": false}');
await shot("4-settings");
await accessible("settings");
await page.click("#settings-button");
await page.fill("#question", "Is there a blue star?");
await page.click("#send");
assert.equal(typeof JSON.parse(await answered(3)).there, "boolean");
await page.click("#settings-button");
await page.fill("#schema", "");
await page.click("#settings-button");

// pasted
await page.click("#clear");
await page.evaluate(async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  canvas.getContext("2d").fillRect(8, 8, 40, 40);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  const data = new DataTransfer();
  data.items.add(new File([blob], "pasted.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
});
await page.waitForSelector("#attachments img");
await page.click("#attachments button");
assert.equal(await page.locator("#attachments li").count(), 0);

// from the camera, and stopped
await page.click("#photo");
await page.waitForFunction(() => document.getElementById("finder").videoWidth > 0);
await shot("5-shutter");
await page.click("#take-photo");
await page.waitForSelector("#attachments img");
await page.selectOption("#detail", "high", { force: true });
await page.route("**/v1/chat/completions", (route) => setTimeout(() => route.continue().catch(() => {}), 1000));
await page.fill("#question", "describe");
await page.click("#send");
await shot("6-waiting");
await page.click("#stop");
await page.waitForSelector("#send:visible");
assert.equal(await page.locator(".turn").count(), 0);
assert.equal(await page.locator("#question").inputValue(), "describe");
await page.click("#attachments button");
await page.unroute("**/v1/chat/completions");

// live
await page.click("#show-live");
await page.fill("#live-question", "describe");
await page.selectOption("#interval", "0");
await page.click("#live-button");
await page.waitForFunction(() => /^first token/.test(document.getElementById("live-speed").textContent));
assert.ok((await page.locator("#caption").textContent()).length > 5);
await shot("7-live");
await accessible("live");
await page.click("#live-button");

// dark, and on a phone
await page.click("#show-chat");
await page.emulateMedia({ colorScheme: "dark" });
await page.setInputFiles("#files", picture);
await page.fill("#question", "describe");
await page.keyboard.press("Enter");
await answered(1);
await shot("8-dark");
await accessible("dark");
await page.setViewportSize({ width: 375, height: 667 });
await shot("9-phone");
assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing sticks out on a phone");
await accessible("phone");
assert.deepEqual(complaints, []);
await browser.close();
console.log("ok");
