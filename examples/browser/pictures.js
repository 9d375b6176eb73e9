// A picture -> tiles, to the last bit as smol-edge and transformers make them from the same pixels.
//
// transformers.js itself resizes bilinearly; this is the resampling of Pillow 13 (libImaging/Resample.c: rows, then
// columns, weights in 22 bits of fixed point, rounded to 8 bits between the two and between the resizes). A picture is
// {width, height, data}: RGB, one byte each. No DOM, so that it runs in a worker and under Node.

const PRECISION_BITS = 32 - 8 - 2;
const MAX_EDGE = 4096; // no resized picture is longer than this

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTERS = {
  // by Pillow's numbers, which preprocessor_config.json has as `resample`
  1: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) }, // Lanczos
  2: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) }, // bilinear
  3: { support: 2, weight: bicubic },
};

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// Which neighbours each output pixel is made of: first[i], count[i], and their weights in fixed point.
function weights(inSize, outSize, filter) {
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1);
  const support = filter.support * filterScale;
  const most = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  const fixed = new Int32Array(outSize * most);
  const row = new Float64Array(most);
  for (let i = 0; i < outSize; i++) {
    const center = (i + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(inSize, Math.trunc(center + support + 0.5));
    let sum = 0;
    for (let j = 0; j < end - begin; j++) {
      row[j] = filter.weight((j + begin - center + 0.5) * (1 / filterScale));
      sum += row[j];
    }
    for (let j = 0; j < end - begin; j++) {
      const weight = (sum === 0 ? row[j] : row[j] / sum) * (1 << PRECISION_BITS);
      fixed[i * most + j] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    first[i] = begin;
    count[i] = end - begin;
  }
  return { first, count, fixed, most };
}

// One pass: `lines` lines of `inSize` pixels, whose neighbours lie `step` bytes apart, become lines of `outSize`.
function pass(source, target, inSize, outSize, lines, inLine, outLine, inStep, outStep, filter) {
  const { first, count, fixed, most } = weights(inSize, outSize, filter);
  const half = 1 << (PRECISION_BITS - 1);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < outSize; i++) {
      let r = half;
      let g = half;
      let b = half;
      let at = line * inLine + first[i] * inStep;
      for (let j = 0; j < count[i]; j++, at += inStep) {
        const weight = fixed[i * most + j];
        r += source[at] * weight;
        g += source[at + 1] * weight;
        b += source[at + 2] * weight;
      }
      const to = line * outLine + i * outStep;
      target[to] = r >> PRECISION_BITS; // a Uint8ClampedArray keeps it within 0..255
      target[to + 1] = g >> PRECISION_BITS;
      target[to + 2] = b >> PRECISION_BITS;
    }
  }
}

export function resize(picture, width, height, resample = 1) {
  const filter = FILTERS[resample];
  if (!filter) throw new Error(`this page cannot resize with Pillow's filter ${resample}`);
  // Pillow 13 begins with the columns where the height shrinks much more than the width; before, rows came first
  const lost = picture.height - height;
  const columnsFirst = lost > 0 && lost > 2 * (picture.width - width);
  const steps = columnsFirst ? [stretchHeight, stretchWidth] : [stretchWidth, stretchHeight];
  for (const step of steps) picture = step(picture, step === stretchWidth ? width : height, filter);
  return picture;
}

function stretchWidth(picture, width, filter) {
  if (width === picture.width) return picture;
  const { height } = picture;
  const data = new Uint8ClampedArray(width * height * 3);
  pass(picture.data, data, picture.width, width, height, picture.width * 3, width * 3, 3, 3, filter);
  return { width, height, data };
}

function stretchHeight(picture, height, filter) {
  if (height === picture.height) return picture;
  const { width } = picture;
  const data = new Uint8ClampedArray(width * height * 3);
  pass(picture.data, data, picture.height, height, width, 3, 3, width * 3, width * 3, filter);
  return { width, height, data };
}

// The longer side at `edge`, the other in proportion and even, both at most 4096.
export function longestEdgeSize(width, height, edge) {
  let ratio = width / height;
  if (width >= height) {
    [width, height] = [edge, Math.trunc(edge / ratio)];
    height += height % 2;
  } else {
    [width, height] = [Math.trunc(edge * ratio), edge];
    width += width % 2;
  }
  [width, height] = [Math.max(width, 1), Math.max(height, 1)];
  ratio = width / height;
  if (width >= height && width > MAX_EDGE) [width, height] = [MAX_EDGE, Math.trunc(MAX_EDGE / ratio)];
  else if (height > width && height > MAX_EDGE) [width, height] = [Math.trunc(MAX_EDGE * ratio), MAX_EDGE];
  return [Math.max(width, 1), Math.max(height, 1)];
}

// Both sides rounded up to multiples of the tile, the longer one first.
export function tileMultipleSize(width, height, tile) {
  const ratio = width / height;
  const up = (size) => Math.ceil(size / tile) * tile;
  if (width >= height) {
    width = up(width);
    return [width, up(Math.trunc(width / ratio))];
  }
  height = up(height);
  return [up(Math.trunc(height * ratio)), height];
}

// {squares, rows, columns}: row by row, the whole picture last; a single square if rows is 0. `config` is
// preprocessor_config.json; `detail` is "high" (its rules), "auto" (not enlarged) or "low" (one square).
export function cut(picture, config, detail = "high") {
  const { resample } = config;
  const tile = config.max_image_size.longest_edge;
  let edge = config.size.longest_edge;
  if (detail === "auto") edge = Math.min(edge, Math.ceil(Math.max(picture.width, picture.height) / tile) * tile);
  let image = resize(picture, ...longestEdgeSize(picture.width, picture.height, edge), resample);
  if (detail === "low" || config.do_image_splitting === false) {
    return { squares: [resize(image, tile, tile, resample)], rows: 0, columns: 0 };
  }
  image = resize(image, ...tileMultipleSize(image.width, image.height, tile), resample);
  const columns = image.width / tile;
  const rows = image.height / tile;
  if (rows <= 1 && columns <= 1) return { squares: [image], rows: 0, columns: 0 };
  const squares = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) squares.push(square(image, column * tile, row * tile, tile));
  }
  return { squares: [...squares, resize(image, tile, tile, resample)], rows, columns };
}

function square(image, left, top, tile) {
  const data = new Uint8ClampedArray(tile * tile * 3);
  for (let y = 0; y < tile; y++) {
    const begin = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(begin, begin + tile * 3), y * tile * 3);
  }
  return { width: tile, height: tile, data };
}

// Squares -> float32 [squares, 3, tile, tile], rescaled in float64, then rounded to float32 and normalised there.
export function pixelValues(squares, config) {
  const { fround } = Math;
  const tables = [0, 1, 2].map((channel) =>
    Float32Array.from({ length: 256 }, (_, level) => {
      const rescaled = fround(level * config.rescale_factor);
      const centered = fround(rescaled - fround(config.image_mean[channel]));
      return centered / fround(config.image_std[channel]);
    }),
  );
  const tile = squares[0].width;
  const area = tile * tile;
  const values = new Float32Array(squares.length * 3 * area);
  squares.forEach(({ data }, index) => {
    for (let channel = 0; channel < 3; channel++) {
      const begin = (index * 3 + channel) * area;
      for (let at = 0; at < area; at++) values[begin + at] = tables[channel][data[at * 3 + channel]];
    }
  });
  return values;
}

// What takes the place of transformers.js' own image processor in a processor: the same call, our pixels.
// `Tensor` is transformers.js'; `detail` is asked at every call.
export function imageProcessor(Tensor, config, detail = () => "high") {
  const processor = (pictures) => {
    const cuts = pictures.flat().map((picture) => cut(picture, config, detail()));
    const squares = cuts.flatMap((each) => each.squares);
    const tile = squares[0].width;
    return {
      pixel_values: new Tensor("float32", pixelValues(squares, config), [1, squares.length, 3, tile, tile]),
      rows: [cuts.map((each) => each.rows)],
      cols: [cuts.map((each) => each.columns)],
    };
  };
  return processor;
}
