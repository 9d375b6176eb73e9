// Offline after the first load, and threads on any static host.
//
// A model's files are kept under their sha256, as its smol-edge.json has it: a new export fetches what has changed and
// nothing else. Every answer gets the two headers by which a page is isolated (COOP, COEP), which WebAssembly's threads
// need; a host that sends them itself is as good.
const MODELS = "smol-edge-models";
const PAGE = "smol-edge-page";
const records = new Map(); // folder -> smol-edge.json, as long as this worker lives

const FILES = [
  "./",
  "page.js",
  "worker.js",
  "pictures.js",
  "webgpu.js",
  "lib/transformers.min.js",
  "lib/ort-wasm-simd-threaded.asyncify.mjs",
  "lib/ort-wasm-simd-threaded.asyncify.wasm",
  "models/models.json",
];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(PAGE).then((cache) => cache.addAll(FILES)));
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== self.location.origin) return;
  event.respondWith(answer(request).then(isolated));
});

async function answer(request) {
  const url = new URL(request.url);
  const [, base, folder, path] = url.pathname.match(/^(.*\/models\/)([^/]+)\/(.+)$/) ?? [];
  if (folder && path !== "smol-edge.json") {
    const entry = (await record(base, folder))?.files?.[path];
    if (entry) return bySha256(request, entry.sha256);
  }
  return freshOrKept(request);
}

async function record(base, folder) {
  if (!records.has(folder)) {
    const response = await freshOrKept(new Request(`${base}${folder}/smol-edge.json`));
    if (!response.ok) return null;
    records.set(folder, await response.json());
    await forgetOthers();
  }
  return records.get(folder);
}

async function bySha256(request, sha256) {
  const cache = await caches.open(MODELS);
  const key = new URL(`sha256/${sha256}`, self.location).href;
  const kept = await cache.match(key);
  if (kept) return kept;
  const response = await fetch(request.url, { cache: "no-store" });
  if (!response.ok) return response;
  const data = await response.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) {
    return new Response(`${request.url} is not the file that smol-edge.json names: copy the folder again`, { status: 502 });
  }
  const headers = { "Content-Type": "application/octet-stream", "Content-Length": String(data.byteLength) };
  await cache.put(key, new Response(data, { headers }));
  return new Response(data, { headers });
}

// What was kept of an earlier export of the folders in use.
async function forgetOthers() {
  const cache = await caches.open(MODELS);
  const wanted = new Set();
  const page = await caches.open(PAGE);
  for (const request of await page.keys()) {
    if (!request.url.endsWith("/smol-edge.json")) continue;
    const { files } = await (await page.match(request)).json();
    for (const { sha256 } of Object.values(files)) wanted.add(sha256);
  }
  for (const request of await cache.keys()) {
    if (!wanted.has(request.url.split("/").at(-1))) await cache.delete(request);
  }
}

// The page itself: as the host has it now, or, without a network, as it was.
async function freshOrKept(request) {
  const cache = await caches.open(PAGE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request.url, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request.url, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

function isolated(response) {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
