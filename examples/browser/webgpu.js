// The attention of onnxruntime-web 1.31 on WebGPU is wrong where few threads make a subgroup: with SwiftShader's four,
// logits are off by their own size, and answers are babble. Without subgroups another kernel computes it, and is right.
const ENOUGH = 32; // what most graphics processors have; fewer were not seen to be right

export function hideNarrowSubgroups() {
  const adapter = globalThis.GPUAdapter?.prototype;
  if (!adapter) return;
  const { get } = Object.getOwnPropertyDescriptor(adapter, "features");
  Object.defineProperty(adapter, "features", {
    get() {
      const features = [...get.call(this)];
      const narrow = !(this.info.subgroupMinSize >= ENOUGH);
      return new Set(narrow ? features.filter((name) => !name.startsWith("subgroup")) : features);
    },
  });
}
