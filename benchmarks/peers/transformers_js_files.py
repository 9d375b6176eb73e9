"""A bundle's ONNX graphs in the layout that transformers.js reads; nobody publishes such files of a user's checkpoint.

    python benchmarks/peers/transformers_js_files.py BUNDLE OUT

The operators and weights stay; what changes is around them: encoder and connector become one graph that takes
[batch, tiles, 3, height, width], and the decoder gets GroupQueryAttention's lengths from an attention mask.
"""

import shutil
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, compose, helper


def vision_encoder(bundle: Path) -> onnx.ModelProto:
    """pixel_values [batch, tiles, 3, height, width] -> image_features [batch * tiles, image_seq_len, hidden]."""
    encoder, connector = onnx.load(bundle / "vision_encoder.onnx"), onnx.load(bundle / "connector.onnx")
    link = [(encoder.graph.output[0].name, f"connector_{connector.graph.input[0].name}")]
    connector = compose.add_prefix(connector, "connector_")
    model = compose.merge_models(encoder, connector, io_map=link)
    _rename_output(model, "image_features")
    (tiles,) = model.graph.input
    shape = [dimension.dim_value for dimension in tiles.type.tensor_type.shape.dim][1:]
    for node in model.graph.node:
        node.input[:] = ["tiles" if name == tiles.name else name for name in node.input]
    model.graph.initializer.append(helper.make_tensor("tile_shape", TensorProto.INT64, [4], [-1, *shape]))
    model.graph.node.insert(0, helper.make_node("Reshape", [tiles.name, "tile_shape"], ["tiles"]))
    whole = helper.make_tensor_value_info(tiles.name, TensorProto.FLOAT, ["batch", "tiles", *shape])
    model.graph.input[0].CopyFrom(whole)
    return model


def decoder(bundle: Path) -> onnx.ModelProto:
    """The same with attention_mask [batch, past + new] instead of lengths, and one row of logits."""
    model = onnx.load(bundle / "decoder.onnx")
    kept = [each for each in model.graph.input if each.name == "inputs_embeds" or each.name.startswith("past_")]
    for each in kept:  # the name tells transformers.js what size an empty cache has
        each.type.tensor_type.shape.dim[0].dim_param = "batch_size"
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "total"])
    del model.graph.input[:]
    model.graph.input.extend([*kept, mask])
    for name, shape in {"logits_to_keep": [1], "mask_one": [1], "mask_axis": [1], "mask_index": []}.items():
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, shape, [1]))
    nodes = [
        helper.make_node("ReduceSum", ["attention_mask", "mask_axis"], ["mask_sum"], keepdims=0),
        helper.make_node("Sub", ["mask_sum", "mask_one"], ["mask_last"]),
        helper.make_node("Cast", ["mask_last"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["mask_shape"]),
        helper.make_node("Gather", ["mask_shape", "mask_index"], ["mask_total"]),
        helper.make_node("Cast", ["mask_total"], ["total_sequence_length"], to=TensorProto.INT32),
    ]
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)
    return model


def _rename_output(model: onnx.ModelProto, name: str) -> None:
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = [name if each == output.name else each for each in node.output]
    output.name = name


def write(bundle: Path, out: Path) -> None:
    """OUT as a whole or not at all."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "onnx").mkdir(parents=True)
    for file in bundle.glob("*.json"):
        if file.name != "bundle.json":
            shutil.copy(file, part)
    graphs = {
        "vision_encoder": vision_encoder(bundle),
        "embed_tokens": onnx.load(bundle / "embed_tokens.onnx"),
        "decoder_model_merged": decoder(bundle),
    }
    for name, model in graphs.items():
        onnx.save(model, part / "onnx" / f"{name}.onnx")
    part.rename(out)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
