"""input_ids -> inputs_embeds: the token table."""

from smolvlm_edge.config import ModelConfig
from smolvlm_edge.export.checkpoint import Checkpoint, Weight
from smolvlm_edge.export.targets import GraphBuilder


def token_table(checkpoint: Checkpoint, config: ModelConfig) -> Weight:
    """The embedding matrix [vocab_size, hidden]."""
    return checkpoint.weight("model.text_model.embed_tokens.weight", config.text.vocab_size, config.text.hidden_size)


def embed_tokens(graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig) -> None:
    """input_ids int64 [batch, sequence] -> inputs_embeds float32 [batch, sequence, text hidden]."""
    input_ids = graph.input("input_ids", "int64", ("batch", "sequence"))
    inputs_embeds = graph.embedding("embed_tokens", input_ids, token_table(checkpoint, config))
    graph.layer_done()
    graph.output("inputs_embeds", inputs_embeds, "float32", ("batch", "sequence", config.text.hidden_size))
