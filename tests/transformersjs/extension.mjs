// examples/browser-extension in headless Chromium: node extension.mjs PACKAGE EXTENSION < PICTURE_URLS > ANSWERS
import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const [packageFolder, extension] = process.argv.slice(2);
const { chromium } = createRequire(join(resolve(packageFolder), "package.json"))("playwright-core");
const profile = mkdtempSync(join(tmpdir(), "chromium-"));
const quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: false, // the old headless mode knows no extensions
  ignoreDefaultArgs: ["--disable-extensions"],
  args: ["--headless=new", "--no-sandbox", "--disable-quic", "--disable-gpu", ...quiet, `--load-extension=${extension}`],
});
const worker = browser.serviceWorkers()[0] ?? (await browser.waitForEvent("serviceworker"));
await worker.evaluate(() => {
  const reasons = ["WORKERS"]; // as background.js does when the menu is used, which no program can click
  return chrome.offscreen.createDocument({ url: "offscreen.html", reasons, justification: "test" });
});
for await (const line of createInterface({ input: process.stdin })) {
  const ask = (describe) => chrome.runtime.sendMessage({ describe });
  console.log(JSON.stringify(await worker.evaluate(ask, JSON.parse(line))));
}
await browser.close();
rmSync(profile, { recursive: true, force: true });
