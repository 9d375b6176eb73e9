// examples/browser in headless Chromium: node page.mjs PACKAGE URL FOLDER [wasm|webgpu] < QUESTIONS > ANSWERS
//
// A line of questions is {"images": [PATH, ...], "prompt", "detail"} or {"offline": true}, after which the page is
// loaded again without a network (WITHOUT_SERVICE_WORKER=1 blocks what makes that possible); a line of answers {"text",
// "status", "isolated", "errors"}.
import { createInterface } from "node:readline";
import { openChromium } from "./chromium.mjs";

const [packageFolder, url, folder, device = "wasm"] = process.argv.slice(2);
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
const browser = await openChromium(packageFolder, {
  serviceWorkers: process.env.WITHOUT_SERVICE_WORKER ? "block" : "allow",
  ...(device === "webgpu" ? { args: [...WEBGPU, "--ignore-gpu-blocklist"] } : {}),
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
  await settled("Loaded in|failed");
}

await load();
for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  if (question.offline) {
    await browser.context.setOffline(true);
    await load();
  } else {
    await page.setInputFiles("#file", question.images);
    await page.waitForFunction((n) => document.querySelectorAll("#pictures canvas").length === n, question.images.length);
    await page.selectOption("#detail", question.detail ?? "high");
    await page.fill("#prompt", question.prompt);
    await page.click("#ask");
    await settled("tokens/s|first after|failed");
  }
  const read = (id) => page.locator(id).textContent();
  const isolated = await page.evaluate(() => self.crossOriginIsolated);
  const answer = { text: await read("#answer"), status: await read("#status"), isolated, errors: errors.splice(0) };
  console.log(JSON.stringify(answer));
}
await browser.close();
