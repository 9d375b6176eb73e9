"""The folder that transformers.js' `AutoModelForImageTextToText.from_pretrained` reads, made of a bundle for ONNX.

    onnx/vision_encoder         pixel_values -> image_features: vision encoder and connector in one graph
    onnx/embed_tokens           input_ids -> inputs_embeds
    onnx/decoder_model_merged   inputs_embeds, attention_mask, past_key_values -> logits, present

Names, inputs and outputs are those that transformers.js 4.3.1 looks for. Every graph is written once for each number
format, its suffix that of utils/dtypes.js; weights stand beside it in `.onnx_data`. Formats are named as there:

    fp32            everything in float32
    q8, q4          for WebAssembly and Node: weights as in the bundle, arithmetic in float32
    fp16, q4f16     for WebGPU: the same weights, arithmetic in float16

onnxruntime-web 1.31 has no fast kernel for MatMulNBits in WebAssembly: it widens the whole matrix for every token. So
in q8 and q4 a matrix in blocks is DequantizeLinear and MatMul. Natively ONNX Runtime makes MatMulNBits of the two; with
the session option `session.disable_quant_qdq` it widens the matrix once, when the graph is opened, which is what a page
wants. The vision encoder's DynamicQuantizeMatMul is the fastest there is in WebAssembly, but WebGPU has no kernel for
it: fp16 formats have DequantizeLinear and MatMul there, and keep MatMulNBits, which WebGPU has.
"""

from pathlib import Path

import onnx_ir as ir

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export.layouts.layout import Layout
from smolvlm_edge.export.layouts.transformersjs.files import RECORD, write_files
from smolvlm_edge.export.layouts.transformersjs.graphs import GRAPHS
from smolvlm_edge.export.layouts.transformersjs.widths import halve, make_unsigned, unpack_blocks, unpack_rows
from smolvlm_edge.quantize import Recipe

SUFFIXES = {"fp32": "", "fp16": "_fp16", "q8": "_quantized", "q4": "_q4", "q4f16": "_q4f16"}
"""Of a graph's files, by transformers.js' name of the number format."""
INLINE_BYTES = 1024  # smaller tensors stand in the graph file itself


def arrange(bundle: Bundle, folder: Path) -> None:
    """Write a bundle's ONNX graphs the way transformers.js reads them, and the configuration that says so."""
    formats = formats_of(Recipe.from_dict(bundle.recipe))
    (folder / "onnx").mkdir()
    for format_ in formats:
        for name, graph in GRAPHS.items():
            model = graph(bundle)
            if format_.endswith("16") and name != "embed_tokens":
                unpack_rows(model)
                halve(model)
            elif format_ == "fp16":
                halve(model)
            else:
                unpack_blocks(model)
                make_unsigned(model)
            _save(model, folder / "onnx" / f"{name}{SUFFIXES[format_]}.onnx")
    write_files(bundle, folder, formats)


def formats_of(recipe: Recipe) -> tuple[str, ...]:
    """The number formats that a recipe's bundle is written in: first that for WebAssembly and Node, last for WebGPU."""
    if recipe.is_fitted:
        return ("q4", "q4f16")
    return ("q8",) if recipe.rules else ("fp32", "fp16")


def _save(model: ir.Model, path: Path) -> None:
    """A graph in one file and its weights in another."""
    ir.save(model, path, external_data=f"{path.name}_data", size_threshold_bytes=INLINE_BYTES)


FILES = tuple(
    f"onnx/{name}{suffix}.onnx{data}" for name in GRAPHS for suffix in SUFFIXES.values() for data in ("", "_data")
)

TRANSFORMERS_JS = Layout(
    "transformers.js' AutoModelForImageTextToText", "onnx", (*FILES, RECORD), arrange, refused=frozenset({"static"})
)
