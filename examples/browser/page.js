// What is seen: pictures in, a question, the answer as it comes. The model is in worker.js.
const $ = (id) => document.getElementById(id);
const MAX_TOKENS = 200;
const pictures = []; // {width, height, data}: RGB
let worker;

await startServiceWorker();
await listModels();
await offerWebGpu();

// The service worker adds the headers that isolate the page, so the page is fetched once more when it has begun.
async function startServiceWorker() {
  const registration = await navigator.serviceWorker?.register("sw.js").catch(() => null);
  if (!registration) return; // a private window, or no https: the page works, with one thread and a network
  if (!navigator.serviceWorker.controller) {
    await new Promise((begun) => navigator.serviceWorker.addEventListener("controllerchange", begun, { once: true }));
  }
  if (self.crossOriginIsolated) return;
  if (sessionStorage.getItem("isolated")) return; // it did not help: one thread will do
  sessionStorage.setItem("isolated", "tried");
  location.reload();
  await new Promise(() => {});
}

async function listModels() {
  const names = await (await fetch("models/models.json")).json();
  $("folder").replaceChildren(...names.map((name) => new Option(name)));
}

// Without float16 a graphics processor gets the files that compute in float32.
async function offerWebGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return;
  const option = new Option("graphics (WebGPU)", "webgpu");
  option.dataset.half = adapter.features.has("shader-f16") ? "yes" : "no";
  $("device").append(option);
}

$("model").addEventListener("submit", (event) => {
  event.preventDefault();
  worker?.terminate(); // WebAssembly's memory never shrinks: another model begins anew
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => Object.entries(data).forEach(([kind, value]) => on[kind](value));
  worker.onerror = (error) => on.error(error.message || "the worker could not be started");
  $("asking").disabled = true;
  status("Loading …");
  const [option] = $("device").selectedOptions;
  worker.postMessage({ load: { folder: $("folder").value, device: option.value, half: option.dataset.half === "yes" } });
});

$("question").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = [...pictures.map(() => ({ type: "image" })), { type: "text", text: $("prompt").value }];
  $("answer").textContent = "";
  status("Looking …");
  busy(true);
  worker.postMessage({
    ask: { messages: [{ role: "user", content }], pictures, maxTokens: MAX_TOKENS, wanted: $("detail").value },
  });
});

$("stop").addEventListener("click", () => worker.postMessage({ stop: true }));

const on = {
  progress: ({ file, loaded, total }) => status(`${file}: ${megabytes(loaded)} of ${megabytes(total)}`),
  loaded: ({ dtype, seconds, threads }) => {
    $("asking").disabled = false;
    $("prompt").focus();
    status(`Loaded ${dtype} in ${seconds.toFixed(1)} s${threads ? `, ${threads} thread${threads > 1 ? "s" : ""}` : ""}.`);
  },
  reading: ({ promptTokens, tiles }) => status(`Reading ${promptTokens} tokens, ${tiles} tiles …`),
  piece: (piece) => $("answer").append(piece),
  answered: ({ promptTokens, tiles, tokens, firstSeconds, tokensPerSecond }) => {
    busy(false);
    const speed = tokensPerSecond ? `, ${tokensPerSecond.toFixed(1)} tokens/s` : "";
    status(`${tiles} tiles, ${promptTokens} + ${tokens} tokens, first after ${firstSeconds.toFixed(1)} s${speed}`);
  },
  error: (message) => {
    busy(false);
    status(`That failed: ${message}`, "alert");
  },
};

// The button that begins to work gets the keyboard before the other one stops working.
function busy(answering) {
  const [off, on] = answering ? [$("ask"), $("stop")] : [$("stop"), $("ask")];
  on.disabled = false;
  if (document.activeElement === off) on.focus();
  off.disabled = true;
}

function status(text, role = "none") {
  $("status").role = role;
  $("status").textContent = text;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}

// -- pictures -------------------------------------------------------------------------------------------------------

$("file").addEventListener("change", async () => {
  clearPictures();
  for (const file of $("file").files) {
    try {
      add(await createImageBitmap(file, { colorSpaceConversion: "none" })); // upright, as EXIF says
    } catch {
      status(`${file.name} is no picture that this browser reads`, "alert");
    }
  }
});

$("camera").addEventListener("click", async () => {
  const video = $("video");
  if (video.srcObject) {
    clearPictures();
    add(video);
    video.srcObject.getTracks().forEach((track) => track.stop());
    [video.srcObject, video.hidden, $("camera").textContent] = [null, true, "Camera"];
    return;
  }
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.hidden = false;
    $("camera").textContent = "Take picture";
    await video.play();
  } catch (error) {
    status(`No camera: ${error.message}`, "alert");
  }
});

function clearPictures() {
  pictures.length = 0;
  $("pictures").replaceChildren();
}

// Transparency lies over white, as smol-edge lays it.
function add(source) {
  const canvas = document.createElement("canvas");
  canvas.width = source.videoWidth ?? source.width;
  canvas.height = source.videoHeight ?? source.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const rgb = new Uint8ClampedArray((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) rgb.set(data.subarray(from, from + 3), to);
  pictures.push({ width: canvas.width, height: canvas.height, data: rgb });
  $("pictures").append(canvas);
}
