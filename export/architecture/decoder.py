"""inputs_embeds -> logits: the Llama decoder with its key/value cache."""

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.checkpoint import HEAD, Checkpoint, Weight, concatenate
from smolvlm_edge.export.targets import GraphBuilder, Value

PREFIX = "model.text_model"


def decoder(graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig) -> None:
    """inputs_embeds float32 [batch, sequence, hidden] -> logits float32 [batch, logits_to_keep, vocab_size].

    Besides the cache, which a target shapes as its engine likes it, `logits_to_keep` (int64, one
    element) says for how many of the last positions logits are wanted: those of a whole prompt of
    1,100 tokens would take 217 MB.
    """
    text = config.text
    inputs_embeds = graph.input("inputs_embeds", "float32", ("batch", "sequence", text.hidden_size))
    logits_to_keep = graph.input("logits_to_keep", "int64", (1,))
    graph.begin_cache(text)
    hidden, delta = inputs_embeds, None  # type: Value, Value | None
    for i in range(text.num_hidden_layers):
        hidden, delta = decoder_layer(graph, checkpoint, config, i, hidden, delta)
        graph.layer_done()
    logits = language_head(graph, checkpoint, config, hidden, delta, logits_to_keep)
    graph.layer_done()
    graph.output("logits", logits, "float32", ("batch", "logits", text.vocab_size))


def decoder_layer(
    graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig, index: int, hidden: Value, delta: Value | None
) -> tuple[Value, Value]:
    """One layer: the residual stream before its MLP, and what the MLP adds to it; both [batch, sequence, hidden]."""
    with graph.scope(f"layers.{index}"):
        layer = _Layer(graph, checkpoint, config, index)
        normed, hidden = layer.norm("input_layernorm", hidden, delta)
        delta = layer.self_attention(normed)
        normed, hidden = layer.norm("post_attention_layernorm", hidden, delta)
        return hidden, layer.mlp(normed)


def language_head(
    graph: GraphBuilder,
    checkpoint: Checkpoint,
    config: ModelConfig,
    hidden: Value,
    delta: Value | None,
    logits_to_keep: Value,
) -> Value:
    """Logits [batch, logits_to_keep, vocab_size] of the last positions of a residual stream."""
    text = config.text
    weight = checkpoint.weight(f"{PREFIX}.norm.weight", text.hidden_size)
    normed, _ = graph.rms_norm("norm", hidden, delta, weight, text.rms_norm_eps)
    head = checkpoint.weight(HEAD, text.vocab_size, text.hidden_size)
    return graph.linear("lm_head", graph.last_positions("last", normed, logits_to_keep), head)


class _Layer:
    """One decoder layer; every method takes and returns [batch, sequence, hidden]."""

    def __init__(self, graph: GraphBuilder, checkpoint: Checkpoint, config: ModelConfig, index: int) -> None:
        self.graph, self.checkpoint, self.config, self.index = graph, checkpoint, config.text, index
        self.prefix = f"{PREFIX}.layers.{index}"

    def norm(self, name: str, hidden: Value, delta: Value | None) -> tuple[Value, Value]:
        weight = self.checkpoint.weight(f"{self.prefix}.{name}.weight", self.config.hidden_size)
        return self.graph.rms_norm(name, hidden, delta, weight, self.config.rms_norm_eps)

    def self_attention(self, x: Value) -> Value:
        c = self.config
        query_size, key_size = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        qkv_weight = concatenate(
            f"{self.prefix}.self_attn.qkv_proj.weight",
            [
                self.weight("self_attn.q_proj", query_size, c.hidden_size),
                self.weight("self_attn.k_proj", key_size, c.hidden_size),
                self.weight("self_attn.v_proj", key_size, c.hidden_size),
            ],
        )
        qkv = self.graph.linear("self_attn.qkv_proj", x, qkv_weight)
        attended = self.graph.cached_attention("self_attn", qkv, self.index)
        return self.graph.linear(
            "self_attn.o_proj", attended, self.weight("self_attn.o_proj", c.hidden_size, query_size)
        )

    def mlp(self, x: Value) -> Value:
        size, inner = self.config.hidden_size, self.config.intermediate_size
        gate = self.graph.linear("mlp.gate_proj", x, self.weight("mlp.gate_proj", inner, size))
        up = self.graph.linear("mlp.up_proj", x, self.weight("mlp.up_proj", inner, size))
        gated = self.graph.silu_gate("mlp.act", gate, up)
        return self.graph.linear("mlp.down_proj", gated, self.weight("mlp.down_proj", size, inner))

    def weight(self, name: str, rows: int, columns: int) -> Weight:
        return self.checkpoint.weight(f"{self.prefix}.{name}.weight", rows, columns)
