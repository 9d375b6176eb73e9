// transformers.js answers questions, on Node (ask.mjs) and in Chromium (chromium.mjs): the same calls in both.
//
// A question is {"images": [whatever RawImage.read takes, ...], "prompt", "split", "max_tokens"}, an answer {"input_ids",
// "token_ids", "logits" of the prompt's last position, "text"}. Pictures become tiles by `imageProcessor`, the one of
// examples/browser/pictures.js.
export async function open(library, imageProcessor, { name, config, ...options }) {
  const { AutoModelForImageTextToText, AutoProcessor, RawImage, Tensor } = library;
  let detail = "high";
  const processor = await AutoProcessor.from_pretrained(name);
  processor.components.image_processor = imageProcessor(Tensor, config, () => detail);
  const model = await AutoModelForImageTextToText.from_pretrained(name, options);

  return async ({ images, prompt, split, max_tokens }) => {
    detail = split === false ? "low" : "high";
    const content = [...images.map(() => ({ type: "image" })), { type: "text", text: prompt }];
    const text = processor.apply_chat_template([{ role: "user", content }], { add_generation_prompt: true });
    const pictures = await Promise.all(images.map(async (image) => (await RawImage.read(image)).rgb()));
    const inputs = pictures.length ? await processor(text, pictures) : processor.tokenizer(text);
    const length = inputs.input_ids.dims.at(-1);
    const { logits } = await model.forward({ ...inputs, num_logits_to_keep: new Tensor("int64", [1n], []) });
    const output = await model.generate({ ...inputs, max_new_tokens: max_tokens, do_sample: false });
    const ids = Array.from(output.data, Number);
    return {
      input_ids: ids.slice(0, length),
      token_ids: ids.slice(length),
      logits: Array.from(logits.data),
      text: processor.tokenizer.decode(ids.slice(length), { skip_special_tokens: true }),
    };
  };
}
