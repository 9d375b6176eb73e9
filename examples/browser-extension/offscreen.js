// Keeps the model of examples/browser/worker.js at hand and describes one picture at a time.
const FOLDER = "my-model"; // below models/
const MAX_TOKENS = 100;

const worker = new Worker("worker.js", { type: "module" });
let waiting = Promise.resolve();
let current = null; // {text, resolve, reject} of what the worker does now

worker.onmessage = ({ data }) => {
  if (data.piece) current.text += data.piece;
  if (data.loaded || data.answered) current.resolve(current.text);
  if (data.error) current.reject(new Error(data.error));
};
worker.onerror = (event) => current?.reject(new Error(event.message));

function work(message) {
  waiting = waiting
    .catch(() => {})
    .then(() => new Promise((resolve, reject) => {
      current = { text: "", resolve, reject };
      worker.postMessage(message);
    }));
  return waiting;
}

const loaded = work({ load: { folder: FOLDER, device: "wasm" } });

chrome.runtime.onMessage.addListener(({ describe }, _sender, reply) => {
  answer(describe).then((text) => reply({ text }), (error) => reply({ error: error.message }));
  return true; // the reply comes later
});

async function answer(url) {
  await loaded;
  const content = [{ type: "image" }, { type: "text", text: "Describe this image." }];
  const messages = [{ role: "user", content }];
  return work({ ask: { messages, pictures: [await picture(url)], maxTokens: MAX_TOKENS, wanted: "auto" } });
}

async function picture(url) {
  const bitmap = await createImageBitmap(await (await fetch(url)).blob(), { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const rgb = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) rgb.set(data.subarray(from, from + 3), to);
  return { width, height, data: rgb };
}
