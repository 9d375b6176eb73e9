// examples/browser-extension in headless Chromium: node extension.mjs PACKAGE EXTENSION < PICTURE_URLS > ANSWERS
import { createInterface } from "node:readline";
import { openChromium } from "./chromium.mjs";

const [packageFolder, extension] = process.argv.slice(2);
const browser = await openChromium(packageFolder, {
  headless: false, // the old headless mode knows no extensions
  ignoreDefaultArgs: ["--disable-extensions"],
  args: ["--headless=new", "--disable-gpu", `--load-extension=${extension}`],
});
const worker = browser.context.serviceWorkers()[0] ?? (await browser.context.waitForEvent("serviceworker"));
await worker.evaluate(() => {
  const reasons = ["WORKERS"]; // as background.js does when the menu is used, which no program can click
  return chrome.offscreen.createDocument({ url: "offscreen.html", reasons, justification: "test" });
});
for await (const line of createInterface({ input: process.stdin })) {
  const ask = (describe) => chrome.runtime.sendMessage({ describe });
  console.log(JSON.stringify(await worker.evaluate(ask, JSON.parse(line))));
}
await browser.close();
