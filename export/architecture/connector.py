"""last_hidden_state -> image_features: pixel shuffle and projection into the decoder's space."""

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.checkpoint import Checkpoint
from smolvlm_edge.export.targets import GraphBuilder


def connector(graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig) -> None:
    """last_hidden_state [tiles, patches, vision hidden] -> image_features [tiles, image_seq_len, text hidden]."""
    vision, text = config.vision, config.text
    last_hidden_state = graph.input(
        "last_hidden_state", "float32", ("tiles", vision.patches_per_side**2, vision.hidden_size)
    )
    folded = graph.pixel_shuffle(
        "pixel_shuffle", last_hidden_state, vision.patches_per_side, vision.hidden_size, config.scale_factor
    )
    weight = checkpoint.weight(
        "model.connector.modality_projection.proj.weight",
        text.hidden_size,
        vision.hidden_size * config.scale_factor**2,
    )
    image_features = graph.linear("modality_projection", folded, weight)
    graph.layer_done()
    graph.output("image_features", image_features, "float32", ("tiles", config.image_seq_len, text.hidden_size))
