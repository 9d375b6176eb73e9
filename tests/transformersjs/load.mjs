// Every graph of folders of `smol-edge export --layout transformers.js` opened by onnxruntime-web's WebAssembly, on Node.
//
//     node load.mjs PACKAGE FOLDER ... < /dev/null > OPENED
//
// A line of output is {"folder", "file", "inputs"} or {"folder", "file", "error"}.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [packageFolder, ...folders] = process.argv.slice(2);
const ort = createRequire(join(resolve(packageFolder), "package.json"))("onnxruntime-web");
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
for (const folder of folders) {
  for (const file of readdirSync(join(folder, "onnx")).filter((name) => name.endsWith(".onnx"))) {
    const read = (name) => new Uint8Array(readFileSync(join(folder, "onnx", name)));
    const externalData = [{ path: `${file}_data`, data: read(`${file}_data`) }];
    try {
      const session = await ort.InferenceSession.create(read(file), { externalData, executionProviders: ["wasm"] });
      console.log(JSON.stringify({ folder, file, inputs: session.inputNames }));
      await session.release();
    } catch (error) {
      console.log(JSON.stringify({ folder, file, error: error.message }));
    }
  }
}
process.exit(0); // onnxruntime-web keeps Node alive
