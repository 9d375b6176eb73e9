"""A conversation and its pictures -> what the model reads: token ids, and what stands in the places of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import ImageConfig, ModelConfig
from smolvlm_edge.conversation.messages import Conversation
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.generation.network import Features
from smolvlm_edge.generation.slots import Keys
from smolvlm_edge.graphs import Floats, Graph
from smolvlm_edge.pictures.images import Tiles, grid_of
from smolvlm_edge.pictures.video import Clip, Picture, Timeline, Video


def least_tokens(
    conversation: Conversation,
    encoder: PromptEncoder,
    config: ModelConfig,
    images: ImageConfig,
    options: GenerateOptions,
) -> int:
    """Tokens that a conversation takes at least, by the heads of its pictures' files; before anything is decoded.

    Videos are left out: how many frames they give is known once they are open.

    Raises:
        ImageError: As `grid_of`.
    """
    detail, longest_edge = options.get("detail", "high"), options.get("longest_edge")
    grids, videos = [], 0
    for shown in conversation.sources:
        if isinstance(shown.source, Video):
            videos += 1
        else:
            grids.append(grid_of(shown.source, images, detail=shown.detail or detail, longest_edge=longest_edge))
    least = sum(rows * columns + 1 for rows, columns in grids) * config.image_seq_len
    if videos or least < config.text.max_position_embeddings:
        return least
    return len(encoder.encode(conversation.turns, grids))


@dataclass(frozen=True, slots=True)
class PromptSize:
    """What a prompt takes."""

    tokens: int
    image_tokens: int
    """How many of them stand for pictures."""
    context: int
    """Tokens that the model holds, prompt and answer together."""
    grids: tuple[tuple[int, int], ...]
    """Rows and columns into which every picture, or frame of a video, is cut; (0, 0) if it is not."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What the model is to read."""

    input_ids: npt.NDArray[np.int64]
    """[positions]"""
    is_image: npt.NDArray[np.bool_]
    """Where image tokens are [positions]."""
    keys: Keys
    """[positions]"""
    pictures: Sequence[Tiles]
    """Pictures, and frames of videos, in order."""
    videos: tuple[Timeline, ...]
    answer_prefix: str
    """What the model writes between the prompt and the text of its answer: a space, or nothing."""

    @classmethod
    def of(
        cls, conversation: Conversation, pictures: Sequence[Picture], encoder: PromptEncoder, config: ModelConfig
    ) -> Self:
        """Put a conversation into tokens.

        Raises:
            RequestError: As `PromptEncoder.encode`.
            ContextError: As `PromptEncoder.encode`.
            IntegrityError: The tokenizer does not fit the model.
        """
        videos = tuple(item.timeline for item in pictures if isinstance(item, Clip))
        grids = [(item.rows, item.columns) for item in pictures if isinstance(item, Tiles)]
        input_ids = encoder.encode(conversation.turns, grids, videos)
        tiles = [each for item in pictures for each in (item.frames if isinstance(item, Clip) else (item,))]
        digests = [digest for picture in tiles for digest in picture.digests]
        is_image = input_ids == config.image_token_id
        if is_image.sum() != len(digests) * config.image_seq_len:
            raise IntegrityError(
                "the tokenizer does not keep image tokens apart: tokenizer.json does not fit this model"
            )
        keys = input_ids.copy()
        keys[is_image] = np.repeat(np.array(digests, np.int64), config.image_seq_len)
        # what goes on where the prompt ends is taken as it comes
        prefix = "" if conversation.is_continued else encoder.answer_prefix
        return cls(input_ids, is_image, keys, tiles, videos, prefix)

    def embed(self, start: int, stop: int, embed_tokens: Graph, features: Features) -> Floats:
        """Embeddings [stop - start, hidden]: of tokens, and features in the places of image tokens."""
        inputs_embeds = embed_tokens(self.input_ids[None, start:stop])[0]
        places = self.is_image[start:stop]
        if count := int(places.sum()):
            digests = [digest for picture in self.pictures for digest in picture.digests]
            per_tile = int(self.is_image.sum()) // len(digests)
            first = int(self.is_image[:start].sum())
            tiles = range(first // per_tile, (first + count - 1) // per_tile + 1)
            rows = np.concatenate([features[digests[tile]] for tile in tiles])
            inputs_embeds[places] = rows[first - tiles[0] * per_tile :][:count]
        return inputs_embeds
