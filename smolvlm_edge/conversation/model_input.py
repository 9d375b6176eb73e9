"""A conversation and its pictures -> what the model reads: token ids, and what stands in the places of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import ImageConfig, ModelConfig, VideoConfig
from smolvlm_edge.conversation.messages import Conversation
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.generation.network import Features
from smolvlm_edge.generation.slots import Keys
from smolvlm_edge.graphs import Floats, Graph
from smolvlm_edge.pictures.deadline import Check
from smolvlm_edge.pictures.images import Tiles, grid_of
from smolvlm_edge.pictures.video import Clip, Picture, Timeline, Video, least_frames


def least_tokens(
    conversation: Conversation,
    encoder: PromptEncoder,
    config: ModelConfig,
    images: ImageConfig,
    videos: Callable[[], VideoConfig],
    options: GenerateOptions,
    check: Check | None = None,
) -> int:
    """Tokens that a conversation takes at least, by the heads of its files; before anything is decoded.

    Videos are opened only where so many frames as they may give might not fit.

    Args:
        conversation: What is asked.
        encoder: Knows the tokens.
        config: The model.
        images: Its rules for pictures.
        videos: Reads its rules for videos.
        options: Of the answer.
        check: Called meanwhile; what it raises ends the counting.

    Raises:
        RequestError: As `least_frames`.
        ImageError: As `grid_of` and `least_frames`.
    """
    detail, longest_edge = options.get("detail", "high"), options.get("longest_edge")
    context, clips, grids = config.text.max_position_embeddings, [], []
    for shown in conversation.sources:
        if isinstance(shown.source, Video):
            clips.append(shown.source)
        else:
            grids.append(grid_of(shown.source, images, detail=shown.detail or detail, longest_edge=longest_edge))
    tiles = sum(rows * columns + 1 for rows, columns in grids)
    if clips:
        rules = videos()
        most = tiles + sum(clip.frames or rules.max_frames for clip in clips)
        if most * config.image_seq_len >= context:
            tiles += sum(least_frames(clip, rules, check) for clip in clips)
    least = tiles * config.image_seq_len
    return least if clips or least < context else len(encoder.encode(conversation.turns, grids))


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
