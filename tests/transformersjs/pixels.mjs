// Pictures through examples/browser/pictures.js: a line {"width", "height", "rgb": base64, "config", "detail"} on stdin
// becomes a line {"rows", "columns", "sizes", "squares": sha256, "pixel_values": sha256} on stdout.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { cut, pixelValues } from "../../examples/browser/pictures.js";

const sha256 = (arrays) => {
  const hash = createHash("sha256");
  for (const array of arrays) hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  return hash.digest("hex");
};

for await (const line of createInterface({ input: process.stdin })) {
  const { width, height, rgb, config, detail } = JSON.parse(line);
  const { squares, rows, columns } = cut({ width, height, data: Buffer.from(rgb, "base64") }, config, detail);
  console.log(
    JSON.stringify({
      rows,
      columns,
      squares: sha256(squares.map((each) => each.data)),
      pixel_values: sha256([pixelValues(squares, config)]),
    }),
  );
}
