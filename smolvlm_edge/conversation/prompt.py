"""A conversation -> prompt text -> token ids, by the checkpoint's own chat template and tokenizer."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.errors import IntegrityError, RequestError
from smolvlm_edge.pictures.video.timeline import Timeline

COMPLETION = (
    "{% if messages | length > 1 %}{{ raise_exception('a base model completes one text and holds no conversation') }}"
    "{% endif %}{% for part in messages[0]['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
)
"""The template of a checkpoint that has none: a base model goes on writing where the prompt ends, so nothing stands
around the prompt. transformers 5.23 is asked for the same with `processor(text="<image>" + prompt, images=...)`."""
VIDEO_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The template that SmolVLM's processor takes for every conversation with a video, whatever the checkpoint's own is
(transformers 5.23, processing_smolvlm.py, DEFAULT_CHAT_TEMPLATE)."""
DOCTAGS = ("<doctag>", "<otsl>", "<loc_")
"""Special tokens of which any marks a model that writes documents in DocTags (SmolDocling, granite-docling)."""


class ContentPart(TypedDict):
    """A piece of a message: text, or the place of a picture or video."""

    type: str
    """`text`, `image` or `video`."""
    text: NotRequired[str]


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str | Sequence[ContentPart]


class PromptEncoder:
    """Turns conversations into token ids and knows the tokenizer.

    Pictures are expanded in the text and the whole text is tokenized at once: the newline after the last
    row of tiles and the one after it merge into a single token.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.tokenizer = _load_tokenizer(folder)
        self._image_seq_len = config.image_seq_len
        image_token = self.tokenizer.id_to_token(config.image_token_id)
        if image_token is None:
            raise IntegrityError(
                f"{folder}: the tokenizer has no token {config.image_token_id}, which stands for pictures"
            )
        self.image_token: str = image_token
        tokenizer_config = read_json(folder / "tokenizer_config.json")
        self._special_tokens = _special_tokens(tokenizer_config)
        self._vocab_size = config.text.vocab_size
        self.hidden_token_ids = self._hidden_token_ids(config)
        """Tokens that are no text of an answer."""
        source = template_source(folder, tokenizer_config)
        self.is_base = source is None
        """Whether the checkpoint has no chat template: the prompt is completed as it stands."""
        self._template = _compile(COMPLETION if source is None else source)
        own_template = config.model_type != "smolvlm" or self.is_base
        self._video_template = self._template if own_template else _compile(VIDEO_TEMPLATE)

    def encode(
        self, messages: Sequence[Message], grids: Sequence[tuple[int, int]], videos: Sequence[Timeline] = ()
    ) -> npt.NDArray[np.int64]:
        """Token ids [n] of a conversation that ends with the start of the assistant's answer.

        Args:
            messages: The turns; pictures and videos stand where their content parts are.
            grids: (rows, columns) of each picture in the order of the parts; (0, 0) for an unsplit one.
            videos: When the frames of each video were, in the order of the parts.

        Raises:
            RequestError: Pictures and their places do not match, the template refuses the conversation, or a
                text holds a token that the model does not know.
        """
        messages, grids = _with_frames(messages, grids, videos)
        text = self.expand(self.render(messages, with_video=bool(videos)), grids)
        bos = self._special_tokens.get("bos_token")
        # a template that writes the start token itself must not get a second one from the tokenizer
        add_special_tokens = not (bos and text.startswith(bos))
        try:
            ids = self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError:  # half of a surrogate pair
            raise RequestError("the prompt is no valid Unicode text") from None
        if not ids:
            raise RequestError("the model's chat template makes an empty prompt of this conversation")
        if max(ids) >= self._vocab_size:  # granite-docling's tokenizer has <end_of_utterance>, the model has not
            raise RequestError(
                f"the model has no token {self.tokenizer.id_to_token(max(ids))}: leave it out of the text"
            )
        return np.array(ids, np.int64)

    def render(self, messages: Sequence[Message], *, with_video: bool = False) -> str:
        """The prompt text, one image token per picture; `with_video` where the pictures are a video's frames."""
        template = self._video_template if with_video else self._template
        turns = [{"role": message["role"], "content": _parts(message["content"])} for message in messages]
        try:
            return template.render(messages=turns, add_generation_prompt=True, **self._special_tokens)
        except Exception as error:
            raise RequestError(f"the model's chat template refuses this conversation: {error}") from error

    def answer_prefix(self) -> str:
        """The space that an answer begins with where the template writes one before the assistant's words."""
        question: Message = {"role": "user", "content": "?"}
        try:
            asked = self.render([question])
            answered = self.render([question, {"role": "assistant", "content": "!"}])
        except RequestError:  # a base model holds no conversation
            return ""
        return " " if answered.startswith(f"{asked} !") else ""

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


def _load_tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises a bare Exception
        raise IntegrityError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _special_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... as texts, for templates that use them."""
    tokens = {}
    for key, value in tokenizer_config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(content, str):
            tokens[key] = content
    return tokens


def template_source(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The chat template, from wherever the checkpoint keeps it (the newest place first); None if it has none."""
    if (file := folder / "chat_template.jinja").is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise IntegrityError(f"{file} cannot be read: {error}") from error
    source = None
    if (file := folder / "chat_template.json").is_file():
        source = read_json(file).get("chat_template")
    source = source or tokenizer_config.get("chat_template")
    if source is None and not file.is_file():
        return None
    if isinstance(source, list):
        named = [entry for entry in source if isinstance(entry, dict)]
        source = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    if not isinstance(source, str):
        raise IntegrityError(f"{folder}: the chat template is no text: copy chat_template.json from the original model")
    return source


def _compile(source: str) -> Any:
    """A template in a sandbox (it is a stranger's program) with what transformers' chat_template_utils.py gives it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format_: datetime.now().strftime(format_)
    try:
        return environment.from_string(source)
    except (TemplateError, RecursionError) as error:
        raise IntegrityError(f"the model's chat template is damaged: {error}") from error


class _Generation(Extension):
    """{% generation %} marks the assistant's words for training; here only the words count."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[Node]:
        """Leave the tag out and keep what it encloses."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _with_frames(
    messages: Sequence[Message], grids: Sequence[tuple[int, int]], videos: Sequence[Timeline]
) -> tuple[list[Message], list[tuple[int, int]]]:
    """The conversation with every video written out as text and frames, and the grids of the frames among the others.

    SmolVLM's processor does this to the text that its template makes; done before, it works with every template.
    """
    places = sum(part.get("type") == "video" for message in messages for part in _parts(message["content"]))
    if places != len(videos):
        raise RequestError(f"the conversation has {places} places for {len(videos)} videos")
    timelines, pictures = iter(videos), iter(grids)
    written: list[Message] = []
    merged: list[tuple[int, int]] = []
    for message in messages:
        parts: list[ContentPart] = []
        for part in _parts(message["content"]):
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


def _parts(content: str | Sequence[ContentPart]) -> list[ContentPart]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
