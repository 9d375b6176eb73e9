"""The folder that optimum-intel's `OVModelForVisualCausalLM.from_pretrained` reads, made of a bundle for OpenVINO.

    openvino_vision_embeddings_model   pixel_values -> image features: vision encoder and connector in one graph
    openvino_text_embeddings_model     input_ids -> inputs_embeds
    openvino_language_model            inputs_embeds, attention_mask, position_ids, beam_idx -> logits of all positions

Names, inputs and outputs are those that optimum-intel 2.2 looks for, in its intel/openvino/modeling_visual_language.py.
It would pass `patch_position_ids` and `patch_attention_mask` to the first graph if that had such inputs, positions that
are off by one with transformers 4.55 and later. This graph counts its patches itself, so they are right.
"""

from pathlib import Path
from typing import Any

import numpy as np

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.errors import ExportError
from smolvlm_edge.export.layouts.layout import Layout

PARTS = ("vision_embeddings", "text_embeddings", "language")
FILES = tuple(f"openvino_{part}_model{suffix}" for part in PARTS for suffix in (".xml", ".bin"))
MASKED = np.finfo(np.float32).min


def arrange(bundle: Bundle, folder: Path) -> None:
    """Write a bundle's OpenVINO graphs the way optimum-intel reads them."""
    from smolvlm_edge.graphs.openvino import ov  # noqa: PLC0415 - an extra

    core = ov.Core()
    vision_encoder, connector, embed_tokens, decoder = (
        core.read_model(bundle.graph_path(name, "openvino"))
        for name in ("vision_encoder", "connector", "embed_tokens", "decoder")
    )
    models = {
        "vision_embeddings": _joined(ov, vision_encoder, connector),
        "text_embeddings": embed_tokens,
        "language": _language_model(ov, decoder),
    }
    for part, model in models.items():
        model.set_rt_info(bundle.producer, "producer")
        xml, weights = (folder / f"openvino_{part}_model{suffix}" for suffix in (".xml", ".bin"))
        try:
            ov.serialize(model, xml, weights)
        except RuntimeError as error:
            raise ExportError(f"openvino cannot write {xml}: {error}") from error


OPTIMUM = Layout("optimum-intel's OVModelForVisualCausalLM", "openvino", FILES, arrange)


def _joined(ov: Any, first: Any, second: Any) -> Any:
    """A graph whose only output goes into the only input of a second one."""
    _replace(second.get_parameters()[0].output(0), first.get_results()[0].input_value(0))
    return ov.Model(second.get_results(), first.get_parameters(), "vision_embeddings")


def _language_model(ov: Any, decoder: Any) -> Any:
    """The decoder with logits of every position, and with a mask, for sequences that are filled up on the left."""
    ops = ov.opset13
    inputs = {parameter.output(0).get_any_name(): parameter for parameter in decoder.get_parameters()}
    kept = inputs.pop("logits_to_keep")
    negative = _only_reader(kept)
    slice_ = _only_reader(negative)
    _replace(slice_.output(0), slice_.input_value(0))
    attention_mask = ops.parameter([-1, -1], np.dtype(np.int64), name="attention_mask")
    attention_mask.output(0).set_names({"attention_mask"})
    causal = next(node for node in decoder.get_ops() if node.get_friendly_name() == "/causal_mask/Select")
    _replace(causal.output(0), _mask(ops, attention_mask, inputs["position_ids"]).output(0))
    return ov.Model(decoder.get_results(), decoder.get_sinks(), [*inputs.values(), attention_mask], "language_model")


def _mask(ops: Any, attention_mask: Any, position_ids: Any) -> Any:
    """What is added to the scores [batch, 1, sequence, cached and new].

    A token sees what stands before it and is not masked. Where it stands follows from the lengths: in a sequence that
    is filled up on the left, positions begin later.
    """
    zero, one = np.int64(0), np.int64(1)
    total = ops.gather(ops.shape_of(attention_mask), one, zero)
    new = ops.gather(ops.shape_of(position_ids), one, zero)
    keys = ops.range(zero, total, one, "i64")
    places = ops.unsqueeze(ops.range(ops.subtract(total, new), total, one, "i64"), [1])
    before = ops.less_equal(keys, places)  # [sequence, cached and new]
    present = ops.not_equal(ops.unsqueeze(attention_mask, [1, 2]), zero)
    return ops.select(ops.logical_and(before, present), np.float32(0), np.float32(MASKED))


def _only_reader(node: Any) -> Any:
    (reader,) = node.output(0).get_target_inputs()
    return reader.get_node()


def _replace(output: Any, by: Any) -> None:
    """Let everything that reads an output read another one."""
    for reader in output.get_target_inputs():
        reader.replace_source_output(by)
