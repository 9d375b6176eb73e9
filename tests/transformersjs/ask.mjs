// Answers of transformers.js on Node from a folder of `smol-edge export --layout transformers.js`.
//
//     node ask.mjs PACKAGE FOLDER [DTYPE] < QUESTIONS > ANSWERS
//
// A line of questions is {"images": [PATH, ...], "prompt", "split", "max_tokens"}, a line of answers {"input_ids",
// "token_ids", "logits" of the prompt's last position, "text"}. Pictures become tiles by examples/browser/pictures.js.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { imageProcessor } from "../../examples/browser/pictures.js";

const [packageFolder, folder, dtype] = process.argv.slice(2);
const require = createRequire(join(resolve(packageFolder), "package.json"));
const { AutoModelForImageTextToText, AutoProcessor, RawImage, Tensor, env } = require("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
const name = basename(folder);

let detail = "high";
const processor = await AutoProcessor.from_pretrained(name);
const config = JSON.parse(readFileSync(join(folder, "preprocessor_config.json"), "utf8"));
processor.components.image_processor = imageProcessor(Tensor, config, () => detail);
const model = await AutoModelForImageTextToText.from_pretrained(name, {
  device: "cpu",
  ...(dtype ? { dtype } : {}),
  session_options: { intraOpNumThreads: 2, logSeverityLevel: 3 },
});

for await (const line of createInterface({ input: process.stdin })) {
  const { images, prompt, split, max_tokens } = JSON.parse(line);
  detail = split === false ? "low" : "high";
  const content = [...images.map(() => ({ type: "image" })), { type: "text", text: prompt }];
  const text = processor.apply_chat_template([{ role: "user", content }], { add_generation_prompt: true });
  const pictures = await Promise.all(images.map(async (path) => (await RawImage.read(path)).rgb()));
  const inputs = pictures.length ? await processor(text, pictures) : processor.tokenizer(text);
  const length = inputs.input_ids.dims.at(-1);
  const { logits } = await model.forward({ ...inputs, num_logits_to_keep: new Tensor("int64", [1n], []) });
  const output = await model.generate({ ...inputs, max_new_tokens: max_tokens, do_sample: false });
  const ids = Array.from(output.data, Number);
  console.log(
    JSON.stringify({
      input_ids: ids.slice(0, length),
      token_ids: ids.slice(length),
      logits: Array.from(logits.data),
      text: processor.tokenizer.decode(ids.slice(length), { skip_special_tokens: true }),
    }),
  );
}
