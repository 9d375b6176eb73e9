// examples/browser in headless Chromium: node page.mjs PACKAGE URL FOLDER [wasm|webgpu] < QUESTIONS > ANSWERS
//
// A line of questions is {"images": [PATH, ...], "prompt", "detail"} or {"offline": true}, after which the page is
// loaded again without a network (WITHOUT_SERVICE_WORKER=1 blocks what makes that possible); a line of answers {"text",
// "status", "loaded" (what the status was then), "isolated", "errors"}.
import { createInterface } from "node:readline";
import { SWIFTSHADER, openChromium } from "./chromium.mjs";

const [packageFolder, url, folder, device = "wasm"] = process.argv.slice(2);
const browser = await openChromium(packageFolder, {
  serviceWorkers: process.env.WITHOUT_SERVICE_WORKER ? "block" : "allow",
  ...(device === "webgpu" ? { args: SWIFTSHADER } : {}),
});
const page = await browser.context.newPage();
const errors = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));

async function settled(pattern) {
  await page.waitForFunction(
    (source) => new RegExp(source).test(document.getElementById("status")?.textContent ?? ""),
    pattern,
    { timeout: 540_000 },
  );
}

async function load() {
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById("folder")?.options.length > 0, null, { timeout: 60_000 });
  await page.selectOption("#folder", folder);
  await page.selectOption("#device", device);
  await page.click("#model button");
  await settled("Loaded \\w+ in|failed");
  return status();
}

const status = () => page.locator("#status").textContent();
let loaded = await load();
for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  if (question.offline) {
    await browser.context.setOffline(true);
    loaded = await load();
  } else {
    await page.setInputFiles("#file", question.images);
    await page.waitForFunction((n) => document.querySelectorAll("#pictures canvas").length === n, question.images.length);
    await page.selectOption("#detail", question.detail ?? "high");
    await page.fill("#prompt", question.prompt);
    await page.click("#ask");
    await settled("tokens/s|first after|failed");
  }
  const text = await page.locator("#answer").textContent();
  const isolated = await page.evaluate(() => self.crossOriginIsolated);
  console.log(JSON.stringify({ text, status: await status(), loaded, isolated, errors: errors.splice(0) }));
}
await browser.close();
