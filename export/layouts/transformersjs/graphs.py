"""The bundle's four graphs -> the three of transformers.js, with the inputs and outputs that it gives and takes.

Read from models/modeling_utils.js and models/llava/modeling_llava.js of 4.3.1: tiles come as one batch of pictures; the
decoder gets an attention mask instead of lengths, and any input that transformers.js does not know is an error there;
an empty cache has the size `batch_size` where the shape says so and 0 where it has another name.
"""

import numpy as np
import onnx_ir as ir

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export.layouts.transformersjs.editing import Editor, typed
from smolvlm_edge.export.layouts.transformersjs.widths import gather_plainly

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def vision_encoder(bundle: Bundle) -> ir.Model:
    """pixel_values float32 [batch, tiles, 3, H, W] -> image_features float32 [all tiles, image_seq_len, hidden]."""
    model, connector = (ir.load(bundle.graph_path(name, "onnx")) for name in ("vision_encoder", "connector"))
    graph = Editor(model)
    (link,), (features,) = model.graph.outputs, connector.graph.outputs
    connector.graph.inputs[0].replace_all_uses_with(link)
    link.type = link.shape = None  # inside a graph they follow from the operators
    _move(connector.graph, model.graph)
    features.name, model.graph.outputs[0] = "image_features", features
    (tiles,) = model.graph.inputs
    side = bundle.model.vision.image_size
    square = [bundle.model.vision.num_channels, side, side]
    pixel_values = typed("pixel_values", FLOAT, ["batch_size", "num_tiles", *square])
    tiles.name = "tiles"
    tiles.replace_all_uses_with(
        graph.add("/tiles", "Reshape", [pixel_values, graph.constant("tile_shape", np.array([-1, *square]))])
    )
    model.graph.inputs[0] = pixel_values
    graph.finish()
    return model


def embed_tokens(bundle: Bundle) -> ir.Model:
    """input_ids int64 [batch, sequence] -> inputs_embeds float32 [batch, sequence, hidden]."""
    model = ir.load(bundle.graph_path("embed_tokens", "onnx"))
    gather_plainly(model)
    return model


def decoder_model_merged(bundle: Bundle) -> ir.Model:
    """inputs_embeds float32 [batch, sequence, hidden] -> logits float32 [batch, kept or all positions, vocab_size].

    Further inputs: attention_mask int64 [batch, cached and new], all ones; num_logits_to_keep, an int64 scalar: logits
    of the last so many positions, 0 for all; past_key_values.N.key and .value [batch, heads, cached, head_dim].
    """
    model = ir.load(bundle.graph_path("decoder", "onnx"))
    graph, inputs = Editor(model), {value.name: value for value in model.graph.inputs}
    attention_mask = typed("attention_mask", INT64, ["batch_size", "total_sequence_length"])
    num_logits_to_keep = typed("num_logits_to_keep", INT64, [])
    one = graph.constant("one", np.array([1]))
    present = graph.add("/seqlens_k", "ReduceSum", [attention_mask, one], keepdims=0)
    last = graph.add("/seqlens_k", "Sub", [present, one])
    seqlens_k = graph.add("/seqlens_k", "Cast", [last], to=int(ir.DataType.INT32))
    total = graph.add(
        "/total", "Gather", [graph.add("/total", "Shape", [attention_mask]), graph.constant("second", np.array(1))]
    )
    total = graph.add("/total", "Cast", [total], to=int(ir.DataType.INT32))
    kept = graph.add("/logits_to_keep", "Reshape", [num_logits_to_keep, one])
    for name, value in {"seqlens_k": seqlens_k, "total_sequence_length": total, "logits_to_keep": kept}.items():
        old = inputs.pop(name)
        old.replace_all_uses_with(value)
    for value in (*inputs.values(), *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape(["batch_size", *value.shape[1:]])
    model.graph.inputs[:] = [inputs.pop("inputs_embeds"), attention_mask, num_logits_to_keep, *inputs.values()]
    for node in graph.nodes("SkipSimplifiedLayerNormalization"):  # WebGPU does not compute the mean and the deviation
        for unused in node.outputs[1:3]:
            unused.name = ""
    graph.finish()
    return model


def _move(source: ir.Graph, into: ir.Graph) -> None:
    """All nodes and initializers of a graph, under names of their own."""
    for value in list(source.initializers.values()):
        source.initializers.pop(str(value.name))
        value.name = f"connector.{value.name}"
        into.register_initializer(value)
    source.outputs.clear()
    nodes = list(source)
    source.remove(nodes)
    for node in nodes:
        node.name = f"/connector{node.name}"
        for value in node.outputs:
            value.name = f"/connector{value.name}"
    into.extend(nodes)


GRAPHS = {
    "vision_encoder": vision_encoder,
    "embed_tokens": embed_tokens,
    "decoder_model_merged": decoder_model_merged,
}
"""By the names of transformers.js' sessions."""
