// Answers of transformers.js on Node from a folder of `smol-edge export --layout transformers.js`; see asking.mjs.
//
//     node ask.mjs PACKAGE FOLDER < QUESTIONS > ANSWERS
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { imageProcessor } from "../../examples/browser/pictures.js";
import { open } from "./asking.mjs";

const [packageFolder, folder] = process.argv.slice(2);
const library = createRequire(join(resolve(packageFolder), "package.json"))("@huggingface/transformers");
library.env.allowRemoteModels = false;
library.env.localModelPath = dirname(resolve(folder));
const answer = await open(library, imageProcessor, {
  name: basename(folder),
  config: JSON.parse(readFileSync(join(folder, "preprocessor_config.json"), "utf8")),
  device: "cpu",
  session_options: { intraOpNumThreads: 2, logSeverityLevel: 3 },
});
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
