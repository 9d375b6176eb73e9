"""input_ids -> inputs_embeds: the token table."""

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.checkpoint import TOKEN_TABLE, Checkpoint
from smolvlm_edge.export.targets import GraphBuilder


def embed_tokens(graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig) -> None:
    """input_ids int64 [batch, sequence] -> inputs_embeds float32 [batch, sequence, text hidden]."""
    input_ids = graph.input("input_ids", "int64", ("batch", "sequence"))
    table = checkpoint.weight(TOKEN_TABLE, config.text.vocab_size, config.text.hidden_size)
    inputs_embeds = graph.embedding("embed_tokens", input_ids, table)
    graph.layer_done()
    graph.output("inputs_embeds", inputs_embeds, "float32", ("batch", "sequence", config.text.hidden_size))
