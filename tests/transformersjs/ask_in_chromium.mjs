// Answers of transformers.js in headless Chromium, without our page: its published build, on WebAssembly; see asking.mjs.
//
//     node ask_in_chromium.mjs PACKAGE SITE FOLDER [wasm|widened|webgpu] < QUESTIONS > ANSWERS
//
// SITE is the address of a host with lib/, models/FOLDER, pictures.js, webgpu.js and asking.mjs, from which pictures
// come, too. An answer also says whether the page is "isolated" and how many "threads" it has. `widened` is WebAssembly
// with matrices that are widened when a graph is opened, as the page has them.
import { createInterface } from "node:readline";
import { SWIFTSHADER, openChromium } from "./chromium.mjs";

const [packageFolder, site, folder, mode = "wasm"] = process.argv.slice(2);
const browser = await openChromium(packageFolder, {
  serviceWorkers: "block", // no headers but the host's
  ...(mode === "webgpu" ? { args: SWIFTSHADER } : {}),
});
const page = await browser.context.newPage();
await page.goto(`${site}pictures.js`); // a document of the host that runs nothing
await page.evaluate(
  async ({ folder, mode }) => {
    const library = await import("/lib/transformers.min.js");
    const { imageProcessor } = await import("/pictures.js");
    const { open } = await import("/asking.mjs");
    (await import("/webgpu.js")).hideNarrowSubgroups();
    const { env } = library;
    env.allowRemoteModels = false;
    env.allowLocalModels = true;
    env.useBrowserCache = env.useWasmCache = false;
    env.localModelPath = "/models/";
    const engine = `${location.origin}/lib/ort-wasm-simd-threaded.asyncify`;
    env.backends.onnx.wasm.wasmPaths = { mjs: `${engine}.mjs`, wasm: `${engine}.wasm` };
    env.backends.onnx.wasm.numThreads = self.crossOriginIsolated ? 2 : 1;
    const read = async (name) => (await fetch(`/models/${folder}/${name}.json`)).json();
    const answer = await open(library, imageProcessor, {
      name: folder,
      config: await read("preprocessor_config"),
      dtype: (await read("config"))["transformers.js_config"].dtype, // in float32, which SwiftShader has
      device: mode === "webgpu" ? "webgpu" : "wasm",
      session_options: mode === "widened" ? { extra: { session: { disable_quant_qdq: "1" } } } : {},
    });
    const place = { isolated: self.crossOriginIsolated, threads: env.backends.onnx.wasm.numThreads };
    self.answer = async (question) => ({ ...(await answer(question)), ...place });
  },
  { folder, mode },
);
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await page.evaluate((question) => self.answer(question), JSON.parse(line))));
}
await browser.close();
