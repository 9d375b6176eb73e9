"""The model in torch, for training only. Its parameters bear the names of an `idefics3` checkpoint.

The rules are those of transformers 5.23, modeling_idefics3.py and modeling_llama.py. Attention is written out:
torch's fused attention is four times slower on a CPU at these sizes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Size:
    """What config.json will say."""

    tile: int = 96
    patch: int = 8
    scale_factor: int = 2
    vision_width: int = 192
    vision_inner: int = 768
    vision_layers: int = 6
    vision_heads: int = 6
    width: int = 256
    inner: int = 704
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    rope_theta: float = 10000.0
    vocabulary: int = 832

    @property
    def patches(self) -> int:
        """Patches along a tile's side."""
        return self.tile // self.patch

    @property
    def image_seq_len(self) -> int:
        """Positions of the decoder that a tile takes."""
        return (self.patches // self.scale_factor) ** 2


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention [batch, heads, time, head_dim]; queries may have several heads to one of the keys.

    `bias`, [batch, 1, 1, time, time], is added to the scores.
    """
    batch, heads, time, head_dim = query.shape
    kv_heads = key.shape[1]
    query = (query * head_dim**-0.5).reshape(batch, kv_heads, -1, head_dim)
    scores = query @ key.transpose(-1, -2)
    if bias is not None:
        scores = (scores.view(batch, kv_heads, -1, time, time) + bias).view_as(scores)
    return (scores.softmax(-1) @ value).view(batch, heads, time, head_dim)


class VisionAttention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.vision_heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(size.vision_width, size.vision_width))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            p(x).view(batch, time, self.heads, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v).transpose(1, 2).reshape(batch, time, width))


class VisionMlp(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size.vision_width, size.vision_inner)
        self.fc2 = nn.Linear(size.vision_inner, size.vision_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionLayer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(size.vision_width, eps=1e-6)
        self.self_attn = VisionAttention(size)
        self.layer_norm2 = nn.LayerNorm(size.vision_width, eps=1e-6)
        self.mlp = VisionMlp(size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionEmbeddings(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.patch_embedding = nn.Conv2d(3, size.vision_width, size.patch, size.patch)
        self.position_embedding = nn.Embedding(size.patches**2, size.vision_width)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches, patch = self.size.patches, self.size.patch
        x = pixel_values.view(-1, 3, patches, patch, patches, patch).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(-1, patches**2, 3 * patch**2)  # a convolution whose stride is its size is a product
        return (
            F.linear(x, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
            + self.position_embedding.weight
        )


class VisionEncoder(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(size) for _ in range(size.vision_layers))


class VisionModel(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(size)
        self.encoder = VisionEncoder(size)
        self.post_layernorm = nn.LayerNorm(size.vision_width, eps=1e-6)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.embeddings(pixel_values)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


class Projection(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.proj = nn.Linear(size.vision_width * size.scale_factor**2, size.width, bias=False)


class Connector(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.modality_projection = Projection(size)

    def forward(self, x: Tensor) -> Tensor:
        side, s, width = self.size.patches, self.size.scale_factor, self.size.vision_width
        x = x.view(-1, side // s, s, side // s, s, width).permute(0, 1, 3, 2, 4, 5)
        return self.modality_projection.proj(x.reshape(-1, self.size.image_seq_len, width * s * s))


class TextAttention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.head_dim = size.width // size.heads
        self.q_proj = nn.Linear(size.width, size.width, bias=False)
        self.k_proj = nn.Linear(size.width, size.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(size.width, size.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(size.width, size.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            p(x).view(batch, time, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = attend(rotate(q, rotation), rotate(k, rotation), v, bias)
        return self.o_proj(seen.transpose(1, 2).reshape(batch, time, width))


class TextMlp(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.width, size.inner, bias=False)
        self.up_proj = nn.Linear(size.width, size.inner, bias=False)
        self.down_proj = nn.Linear(size.inner, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TextLayer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.width, eps=1e-5)
        self.self_attn = TextAttention(size)
        self.post_attention_layernorm = nn.RMSNorm(size.width, eps=1e-5)
        self.mlp = TextMlp(size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, bias)
        return x + self.mlp(self.post_attention_layernorm(x))


class TextModel(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embed_tokens = nn.Embedding(size.vocabulary, size.width)
        self.layers = nn.ModuleList(TextLayer(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width, eps=1e-5)

    def forward(self, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        rotation = rotations(positions, self.size)
        bias = torch.where(allowed, 0.0, -1e4)[:, :, None].to(torch.bfloat16)
        for layer in self.layers:
            x = layer(x, rotation, bias)
        return self.norm(x)


class Model(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.vision_model = VisionModel(size)
        self.connector = Connector(size)
        self.text_model = TextModel(size)


class Idefics3(nn.Module):
    """The whole model. Input and output embedding are one."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.model = Model(size)
        self.apply(_initialise)

    def patch_features(self, pixel_values: Tensor) -> Tensor:
        """Tiles [n, 3, tile, tile] -> [n, patches, vision_width]."""
        return self.model.vision_model(pixel_values)

    def forward(
        self, features: Tensor, input_ids: Tensor, is_image: Tensor, positions: Tensor, allowed: Tensor, asked: Tensor
    ) -> Tensor:
        """Logits [n, vocabulary] at the positions where `asked` [batch, time] is true.

        Args:
            features: What `patch_features` made of the batch's tiles, in order.
            input_ids: Token ids [batch, time].
            is_image: Which of them are places of pictures.
            positions: Position ids [batch, time].
            allowed: Who may look at whom, bool [batch, 1, time, time].
            asked: Where logits are wanted.
        """
        table = self.model.text_model.embed_tokens.weight
        x = F.embedding(input_ids, table)
        seen = self.model.connector(features).flatten(0, 1).to(x.dtype)
        x = x.masked_scatter(is_image[..., None], seen)
        return F.linear(self.model.text_model(x, positions, allowed)[asked], table)


def rotations(positions: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Cosines and sines [batch, 1, time, head_dim]."""
    head_dim = size.width // size.heads
    frequencies = size.rope_theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = (positions[..., None] * frequencies).repeat(1, 1, 2)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding, halves paired as in Llama."""
    cosines, sines = (y.to(x.dtype) for y in rotation)
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat([-second, first], -1) * sines


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5 * 0.7)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
