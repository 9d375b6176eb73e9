"""A conversation -> prompt text -> token ids, by the checkpoint's own chat template and tokenizer."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.bundle.tokenizer import load_tokenizer, tokenizing
from smolvlm_edge.conversation.template import (
    COMPLETION,
    VIDEO_TEMPLATE,
    ChatTemplate,
    ContentPart,
    Message,
    parts_of,
    template_source,
)
from smolvlm_edge.errors import ContextError, IntegrityError, RequestError
from smolvlm_edge.pictures.video.timeline import Timeline

DOCTAGS = ("<doctag>", "<otsl>", "<loc_")
"""Special tokens of which any marks a model that writes documents in DocTags (SmolDocling, granite-docling)."""
LONGEST_TOKEN = 32
"""Characters that the tokens of a prompt have on average at the very most; those of prose have 4."""
LONGEST_TEXT = 1 << 20
"""Characters that are tokenized at all, which takes up to a second and cannot be stopped."""
SPELLED = "\U000f0000image\U000f0000"
"""Stands for an image token that is text."""


class PromptEncoder:
    """Turns conversations into token ids and knows the tokenizer.

    Pictures are expanded in the text and the whole text is tokenized at once: the newline after the last
    row of tiles and the one after it merge into a single token.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """Read the tokenizer and the chat template of a checkpoint or bundle.

        Raises:
            IntegrityError: One of them is missing, damaged, or does not fit the model.
        """
        self.tokenizer = load_tokenizer(folder)
        self._image_seq_len = config.image_seq_len
        with tokenizing():
            image_token = self.tokenizer.id_to_token(config.image_token_id)
        if not image_token:
            raise IntegrityError(
                f"{folder}: the tokenizer has no token {config.image_token_id}, which stands for pictures"
            )
        self.image_token: str = image_token
        tokenizer_config = read_json(folder / "tokenizer_config.json")
        self._special_tokens = _special_tokens(tokenizer_config)
        self._vocab_size, self._context = config.text.vocab_size, config.text.max_position_embeddings
        self.hidden_token_ids = self._hidden_token_ids(config)
        """Tokens that are no text of an answer."""
        source = template_source(folder, tokenizer_config)
        self.is_base = source is None
        """Whether the checkpoint has no chat template: the prompt is completed as it stands."""
        self._template = self._compiled(COMPLETION if source is None else source)
        own_template = config.model_type != "smolvlm" or self.is_base
        self._video_template = self._template if own_template else self._compiled(VIDEO_TEMPLATE)

    def _compiled(self, source: str) -> ChatTemplate:
        return ChatTemplate(source, self._special_tokens, self.image_token)

    def encode(
        self, messages: Sequence[Message], grids: Sequence[tuple[int, int]], videos: Sequence[Timeline] = ()
    ) -> npt.NDArray[np.int64]:
        """Token ids [n] of a conversation, up to where the answer begins.

        Args:
            messages: The turns; pictures and videos stand where their content parts are. Where the last one is the
                assistant's, the answer goes on from its text.
            grids: (rows, columns) of each picture in the order of the parts; (0, 0) for an unsplit one.
            videos: When the frames of each video were, in the order of the parts.

        Raises:
            RequestError: Pictures and their places do not match, the template refuses the conversation, or a
                text holds a token that the model does not know.
            ContextError: It is certainly longer than the context; how long it is is not found out then.
            IntegrityError: The tokenizer fails at it.
        """
        messages, grids = _with_frames(messages, grids, videos)
        self._check_pictures(grids)
        self._check_length(sum(len(part.get("text", "")) for each in messages for part in parts_of(each["content"])))
        continued = bool(messages) and messages[-1]["role"] == "assistant"
        text = self.render(
            [self._spelled(message) for message in messages], with_video=bool(videos), continued=continued
        )
        self._check_length(len(text))
        ids = self._tokens(self.expand(text, grids))
        if not ids:
            raise RequestError("the model's chat template makes an empty prompt of this conversation")
        if max(ids) >= self._vocab_size:  # granite-docling's tokenizer has <end_of_utterance>, the model has not
            raise RequestError(
                f"the model has no token {self.tokenizer.id_to_token(max(ids))}: leave it out of the text"
            )
        return np.array(ids, np.int64)

    def render(self, messages: Sequence[Message], *, with_video: bool = False, continued: bool = False) -> str:
        """The prompt text, one image token per picture.

        Args:
            messages: The turns, without videos.
            with_video: Whether the pictures are a video's frames.
            continued: Whether the answer goes on from the text of the last one; see `ChatTemplate.render`.
        """
        return (self._video_template if with_video else self._template).render(messages, continued=continued)

    @cached_property
    def answer_prefix(self) -> str:
        """The space that an answer begins with where the template writes one before the assistant's words."""
        question: Message = {"role": "user", "content": "?"}
        try:
            asked = self.render([question])
            answered = self.render([question, {"role": "assistant", "content": "!"}])
        except RequestError:  # a base model holds no conversation
            return ""
        return " " if answered.startswith(f"{asked} !") else ""

    def _check_pictures(self, grids: Sequence[tuple[int, int]]) -> None:
        tokens = sum(rows * columns + 1 for rows, columns in grids) * self._image_seq_len
        if tokens >= 8 * self._context:  # what is nearer is counted to the last token
            raise ContextError.of(f"{tokens} tokens", self._context)

    def _check_length(self, characters: int) -> None:
        if characters > min(LONGEST_TOKEN * self._context, LONGEST_TEXT):
            raise ContextError.of(f"{characters:,} characters", self._context)

    def _tokens(self, text: str) -> list[int]:
        bos = self._special_tokens.get("bos_token")
        # a template that writes the start token itself must not get a second one from the tokenizer
        add_special_tokens = not (bos and text.startswith(bos))
        first, *others = text.split(SPELLED)
        try:
            with tokenizing():
                ids = self.tokenizer.encode(first, add_special_tokens=add_special_tokens).ids
                for other in others:
                    for piece in (self.image_token[:1], self.image_token[1:], other):
                        ids += self.tokenizer.encode(piece, add_special_tokens=False).ids
        except TypeError:  # half of a surrogate pair
            raise RequestError("the prompt is no valid Unicode text") from None
        return ids

    def _spelled(self, message: Message) -> Message:
        """The message; an answer in which the image token was spelled in letters is no place for a picture."""
        if message["role"] != "assistant":
            return message
        parts = [
            ContentPart(type="text", text=part["text"].replace(self.image_token, SPELLED)) if "text" in part else part
            for part in parts_of(message["content"])
        ]
        return {"role": message["role"], "content": parts}

    def expand(self, text: str, grids: Sequence[tuple[int, int]]) -> str:
        """Replace the n-th image token by the n-th picture's block of tokens."""
        before, *rest = text.split(self.image_token)
        if len(rest) != len(grids):
            raise RequestError(
                f"the prompt has {len(rest)} places for {len(grids)} pictures: do not type {self.image_token} as text"
            )
        return before + "".join(self._picture(*grid) + part for grid, part in zip(grids, rest, strict=True))

    def _picture(self, rows: int, columns: int) -> str:
        """The block that stands for one picture (transformers, processing_idefics3.py, replace_image_token)."""
        fake, tile = "<fake_token_around_image>", self.image_token * self._image_seq_len
        lines = [
            "".join(f"{fake}<row_{row}_col_{column}>{tile}" for column in range(1, columns + 1)) + "\n"
            for row in range(1, rows + 1)
        ]
        return "".join([*lines, "\n"] if lines else []) + f"{fake}<global-img>{tile}{fake}"

    def _hidden_token_ids(self, config: ModelConfig) -> frozenset[int]:
        """Special tokens to leave out of an answer's text.

        All of them, as transformers' `skip_special_tokens=True` does. For a model that writes DocTags, which are
        special tokens too, only those with a role: what tokenizer_config.json names (bos_token, eos_token, ...), end
        tokens and the image token. docling itself decodes with `skip_special_tokens=False` and strips the end.
        """
        special = {
            id_: token.content for id_, token in self.tokenizer.get_added_tokens_decoder().items() if token.special
        }
        if any(content.startswith(DOCTAGS) for content in special.values()):
            roles = {*self._special_tokens.values(), self.image_token}
            special = {id_: text for id_, text in special.items() if text in roles or id_ in config.eos_token_ids}
        return frozenset(special)


def _special_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... as texts, for templates that use them."""
    tokens = {}
    for key, value in tokenizer_config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(content, str):
            tokens[key] = content
    return tokens


def _with_frames(
    messages: Sequence[Message], grids: Sequence[tuple[int, int]], videos: Sequence[Timeline]
) -> tuple[list[Message], list[tuple[int, int]]]:
    """The conversation with every video written out as text and frames, and the grids of the frames among the others.

    SmolVLM's processor does this to the text that its template makes; done before, it works with every template.
    """
    places = sum(part.get("type") == "video" for message in messages for part in parts_of(message["content"]))
    if places != len(videos):
        raise RequestError(f"the conversation has {places} places for {len(videos)} videos")
    timelines, pictures = iter(videos), iter(grids)
    written: list[Message] = []
    merged: list[tuple[int, int]] = []
    for message in messages:
        parts: list[ContentPart] = []
        for part in parts_of(message["content"]):
            if part.get("type") == "video":
                *before, after = next(timelines).texts()
                for text in before:
                    parts += [{"type": "text", "text": text}, {"type": "image"}]
                parts.append({"type": "text", "text": after})
                merged += [(0, 0)] * len(before)
            else:
                parts.append(part)
                if part.get("type") == "image":
                    merged += islice(pictures, 1)
        written.append({"role": message["role"], "content": parts})
    return written, [*merged, *pictures]
