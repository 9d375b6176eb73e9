// Talks to the server that this page comes from, in OpenAI's protocol.

const key = () => document.getElementById("key").value.trim();

async function call(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const request = { headers, signal };
  if (body) Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  const response = await fetch(path, request);
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error?.message ?? `the server says ${response.status}`);
}

export async function models() {
  return (await (await call("v1/models")).json()).data.map((model) => model.id);
}

/** How many tokens and tiles a picture takes. */
export async function measure(part) {
  const messages = [{ role: "user", content: [part] }];
  return (await call("v1/chat/completions/input_tokens", { messages, model: model() })).json();
}

export const model = () => document.getElementById("model").value || undefined;

/** A whole answer. */
export async function answer(wishes, signal) {
  return (await call("v1/chat/completions", wishes, signal)).json();
}

/** An answer as it grows: `onText` gets each piece, `onProgress` what is done before; gives the timings. */
export async function stream(wishes, { onText, onProgress, signal }) {
  const response = await call("v1/chat/completions", { ...wishes, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", timings;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return timings;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith(": ")) onProgress(line.slice(2));
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      timings = event.timings ?? timings;
      const text = event.choices[0]?.delta.content;
      if (text) onText(text);
    }
  }
}
