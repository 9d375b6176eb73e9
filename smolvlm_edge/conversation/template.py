"""A checkpoint's chat template: the turns of a conversation -> the text of a prompt."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.conversation.sandbox import Sandbox
from smolvlm_edge.errors import IntegrityError, RequestError

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
LONGEST = 1 << 18
"""Characters of a template; the longest released ones have a tenth of it."""
END = "CONTINUE_FINAL_MESSAGE_TAG "
"""Marks where a text ends that is to be continued; the space at its end shows whether the template trims it."""
PROBE = "What is in it?"


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


class ChatTemplate:
    """A compiled template, in a sandbox: it is a stranger's program."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], image_token: str) -> None:
        """Compile it.

        Args:
            source: In Jinja's language.
            special_tokens: bos_token, eos_token, ..., which it may use.
            image_token: What stands for a picture where a template takes no content parts.

        Raises:
            IntegrityError: It is damaged or too long.
        """
        if len(source) > LONGEST:
            raise IntegrityError(f"the model's chat template has {len(source):,} characters, more than {LONGEST:,}")
        try:
            self._template = Sandbox().compiled(source)
        except Exception as error:  # Jinja raises SyntaxError for a break outside a loop, and more
            raise IntegrityError(f"the model's chat template is damaged: {error}") from error
        self._special_tokens, self._image_token = special_tokens, image_token

    def render(self, messages: Sequence[Message], *, continued: bool = False) -> str:
        """The prompt's text, one image token per picture.

        Args:
            messages: The turns.
            continued: The last one is the beginning of the answer: the text ends where its text ends, instead of with
                the start of an answer (transformers 5.23, chat_template_utils.py, `continue_final_message`).

        Raises:
            RequestError: The template refuses the conversation, or takes too much time or memory for it.
        """
        turns: list[dict[str, Any]] = [
            {"role": message["role"], "content": parts_of(message["content"])} for message in messages
        ]
        if continued:
            turns[-1]["content"] = [*turns[-1]["content"][:-1], _marked(turns[-1]["content"][-1])]
        try:
            text = self._render([self._as_text(turn) for turn in turns] if self._takes_texts else turns, continued)
        except Exception as error:
            raise RequestError(f"the model's chat template refuses this conversation: {error}") from error
        return _cut(text) if continued else text

    def _render(self, turns: Sequence[Mapping[str, Any]], continued: bool) -> str:
        return self._template(
            messages=turns, tools=None, documents=None, add_generation_prompt=not continued, **self._special_tokens
        )

    @cached_property
    def _takes_texts(self) -> bool:
        """Whether it wants a turn's content as one text, as the templates of language models do, not as parts."""
        turn = {"role": "user", "content": [{"type": "text", "text": PROBE}]}
        return not self._shows(turn) and self._shows(self._as_text(turn))

    def _shows(self, turn: Mapping[str, Any]) -> bool:
        try:
            text = self._render([turn], continued=False)
        except Exception:  # noqa: BLE001 - whatever it stumbles over
            return False
        return PROBE in text and "'type'" not in text and '"type"' not in text

    def _as_text(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        texts = (part["text"] if part["type"] == "text" else self._image_token for part in turn["content"])
        return {**turn, "content": "".join(texts)}


def template_source(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The chat template, from wherever the checkpoint keeps it (the newest place first); None if it has none.

    Raises:
        IntegrityError: It cannot be read, or is no text.
    """
    if (file := folder / "chat_template.jinja").is_file():
        try:
            if file.stat().st_size > 4 * LONGEST:
                raise IntegrityError(f"{file} is too long for a chat template")
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise IntegrityError.of_file(file, error) from error
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


def parts_of(content: str | Sequence[ContentPart]) -> list[ContentPart]:
    """The content of a message as parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _marked(part: ContentPart) -> ContentPart:
    if part["type"] != "text":
        raise RequestError("an answer that is to be continued must end with a text")
    return {"type": "text", "text": part["text"] + END}


def _cut(text: str) -> str:
    """What stands before the mark; without white space before it if the template trims."""
    before, mark, after = text.rpartition(END.strip())
    if not mark:
        raise RequestError("the model's chat template leaves out the beginning of the answer that is to be continued")
    return before if after.startswith(" ") else before.rstrip()
