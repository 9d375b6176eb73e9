// The model, in a worker of its own, so that the page stays alive: {load: {...}} and {ask: {...}} in, events out.
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  InterruptableStoppingCriteria,
  Tensor,
  TextStreamer,
  env,
} from "./lib/transformers.min.js";
import { imageProcessor } from "./pictures.js";
import { hideNarrowSubgroups } from "./webgpu.js";

// Nothing is asked of a model hub, and no file of another host: graphs come from `models/`, the engine from `lib/`.
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = new URL("models/", import.meta.url).pathname;
env.useBrowserCache = false; // sw.js keeps files, by their sha256
env.useWasmCache = false;
const engine = new URL("lib/ort-wasm-simd-threaded.asyncify", import.meta.url).href;
env.backends.onnx.wasm.wasmPaths = { mjs: `${engine}.mjs`, wasm: `${engine}.wasm` };
// Threads share memory, and a page may share memory only when it is isolated from others (COOP and COEP, see sw.js).
env.backends.onnx.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency ?? 1, 4) : 1;

hideNarrowSubgroups();

// Packed matrices are widened once, when a graph is opened: WebAssembly has no kernel that multiplies with them.
const WIDEN = { extra: { session: { disable_quant_qdq: "1" } } };

const stop = new InterruptableStoppingCriteria();
let processor;
let model;
let detail = "high";

async function load({ folder, device, half }) {
  const begin = performance.now();
  await model?.dispose();
  processor = await AutoProcessor.from_pretrained(folder);
  const read = async (name) => (await fetch(`${env.localModelPath}${folder}/${name}`)).json();
  const config = await read("preprocessor_config.json");
  const formats = (await read("config.json"))["transformers.js_config"];
  processor.components.image_processor = imageProcessor(Tensor, config, () => detail);
  const dtype = device === "webgpu" && half ? formats.device_config.webgpu.dtype : formats.dtype;
  model = await AutoModelForImageTextToText.from_pretrained(folder, {
    device,
    dtype,
    session_options: device === "wasm" ? WIDEN : {},
    progress_callback: (event) => event.status === "progress" && postMessage({ progress: event }),
  });
  const threads = device === "wasm" ? env.backends.onnx.wasm.numThreads : null;
  postMessage({ loaded: { dtype, seconds: (performance.now() - begin) / 1000, threads } });
}

async function ask({ messages, pictures, maxTokens, wanted }) {
  const begin = performance.now();
  detail = wanted;
  stop.reset();
  const text = processor.apply_chat_template(messages, { add_generation_prompt: true });
  const inputs = pictures.length ? await processor(text, pictures) : processor.tokenizer(text);
  const promptTokens = inputs.input_ids.dims.at(-1);
  const tiles = inputs.pixel_values?.dims[1] ?? 0;
  postMessage({ reading: { promptTokens, tiles } });
  let first = null;
  let tokens = 0;
  const count = () => {
    first ??= performance.now();
    tokens += 1;
  };
  const streamer = new TextStreamer(processor.tokenizer, {
    skip_prompt: true,
    skip_special_tokens: true,
    token_callback_function: count,
    callback_function: (piece) => postMessage({ piece }),
  });
  await model.generate({
    ...inputs,
    max_new_tokens: maxTokens,
    do_sample: false,
    streamer,
    stopping_criteria: stop,
  });
  const end = performance.now();
  const tokensPerSecond = tokens > 1 ? ((tokens - 1) * 1000) / (end - first) : null;
  postMessage({ answered: { promptTokens, tiles, tokens, firstSeconds: (first - begin) / 1000, tokensPerSecond } });
}

let queue = Promise.resolve();
self.onmessage = ({ data }) => {
  if (data.stop) {
    stop.interrupt();
    return;
  }
  const step = data.load ? () => load(data.load) : () => ask(data.ask);
  queue = queue.then(step).catch((error) => postMessage({ error: String(error?.message ?? error) }));
};
