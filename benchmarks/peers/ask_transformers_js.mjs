// One answer by transformers.js on Node; see protocol.py. `model` is {"package": where it is installed, "folder": a
// model in its layout}.
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";

const asked = JSON.parse(process.argv[2]);
const require = createRequire(join(asked.model.package, "package.json"));
const { AutoModelForImageTextToText, AutoProcessor, BaseStreamer, RawImage, env } = require("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = dirname(asked.model.folder);
const name = basename(asked.model.folder);

class Times extends BaseStreamer {
  moments = [];
  put() {
    this.moments.push(performance.now());
  }
  end() {}
}

let start = performance.now();
const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForImageTextToText.from_pretrained(name, {
  dtype: "q4",
  device: "cpu",
  session_options: { intraOpNumThreads: asked.threads, logSeverityLevel: 3 },
});
const load_ms = performance.now() - start;

let vision_ms = null;
if (model.encode_image) {
  const encode = model.encode_image.bind(model);
  model.encode_image = async (inputs) => {
    const begin = performance.now();
    const features = await encode(inputs);
    vision_ms = (vision_ms ?? 0) + performance.now() - begin;
    return features;
  };
}

start = performance.now();
const pictures = await Promise.all(asked.pictures.map((path) => RawImage.read(path)));
const inputs = pictures.length
  ? await processor(asked.rendered, pictures, { do_image_splitting: asked.split })
  : processor.tokenizer(asked.rendered, { add_special_tokens: false });
const preprocess_ms = performance.now() - start;
const streamer = new Times();
const limits = { max_new_tokens: asked.tokens, min_new_tokens: asked.tokens };
const output = await model.generate({ ...inputs, ...limits, do_sample: false, streamer });
const [, first, ...rest] = streamer.moments;
const prompt_tokens = inputs.input_ids.dims.at(-1);
const generated = output.dims.at(-1) - prompt_tokens;
const ttft_ms = first - start;
const version = (library) => require(`${library}/package.json`).version;
console.log(
  JSON.stringify({
    load_ms,
    preprocess_ms,
    vision_ms,
    prefill_ms: ttft_ms - preprocess_ms - (vision_ms ?? 0),
    ttft_ms,
    decode_tokens_per_s: ((generated - 1) * 1000) / (rest.at(-1) - first),
    second_ttft_ms: null,
    tiles: inputs.pixel_values?.dims[1] ?? 0,
    prompt_tokens,
    generated_tokens: generated,
    text: processor.batch_decode(output.slice(null, [prompt_tokens, null]), { skip_special_tokens: true })[0],
    versions: { "transformers.js": env.version, "onnxruntime-node": version("onnxruntime-node"), node: process.version },
  }),
);
