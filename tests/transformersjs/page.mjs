// examples/browser in headless Chromium: node page.mjs PACKAGE URL FOLDER [wasm|webgpu] < QUESTIONS > ANSWERS
//
// A line of questions is {"images": [PATH, ...], "prompt", "detail"} or {"offline": true}, after which the page is
// loaded again without a network (WITHOUT_SERVICE_WORKER=1 blocks what makes that possible); a line of answers {"text", "status", "isolated", "errors"}.
import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const [packageFolder, url, folder, device = "wasm"] = process.argv.slice(2);
const { chromium } = createRequire(join(resolve(packageFolder), "package.json"))("playwright-core");
const profile = mkdtempSync(join(tmpdir(), "chromium-"));
const quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const graphics =
  device === "webgpu"
    ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--ignore-gpu-blocklist"]
    : ["--disable-gpu"];
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  serviceWorkers: process.env.WITHOUT_SERVICE_WORKER ? "block" : "allow",
  args: ["--no-sandbox", "--disable-quic", ...quiet, ...graphics],
});
const page = await browser.newPage();
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
    await browser.setOffline(true);
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
rmSync(profile, { recursive: true, force: true });
