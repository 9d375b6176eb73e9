"""The Idefics3 architecture, written once, against the interface in `targets/`.

Checked against transformers 5.23, models/idefics3/modeling_idefics3.py and models/llama/modeling_llama.py
(SmolVLM's own modeling file is the same model under other names). Names of nodes and tensors are those
of the checkpoint, so that a graph reads like the model.
"""

from smolvlm_edge.export.architecture.connector import connector
from smolvlm_edge.export.architecture.decoder import decoder
from smolvlm_edge.export.architecture.embedding import embed_tokens
from smolvlm_edge.export.architecture.vision_encoder import vision_encoder

GRAPHS = {
    "vision_encoder": vision_encoder,
    "connector": connector,
    "embed_tokens": embed_tokens,
    "decoder": decoder,
}

__all__ = ["GRAPHS"]
