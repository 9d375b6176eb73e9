"""A conversation -> the model's input, by the checkpoint's preprocessor, tokenizer and chat template."""

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.bundle.config import ImageConfig, VideoConfig
from smolvlm_edge.conversation.messages import Conversation, Shown
from smolvlm_edge.conversation.model_input import ModelInput, PromptSize, least_tokens
from smolvlm_edge.conversation.prompt import PromptEncoder, too_long
from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.generation.stopping import Stop
from smolvlm_edge.pictures.images import cut, open_image
from smolvlm_edge.pictures.video import Picture, Video, read_clip


class Processor:
    """What is done to a prompt and its pictures before anything is computed."""

    def __init__(self, bundle: Bundle) -> None:
        """Read what the bundle says of prompts and pictures.

        Raises:
            IntegrityError: A file of it is missing, damaged, or does not fit the model.
        """
        self.encoder = PromptEncoder(bundle.folder, bundle.model)
        self.images = ImageConfig.from_folder(bundle.folder)
        self._bundle, self._config = bundle, bundle.model

    def read(
        self, conversation: Conversation, pictures: list[Picture], options: GenerateOptions, stop: Stop
    ) -> list[Picture]:
        """Read a conversation's pictures and videos, but for the first ones, which `pictures` holds; they are added.

        Raises:
            ContextError: They do not fit into the context.
            ImageError: One of them cannot be read.
            StoppedError: `stop` was asked to end early.
        """
        if len(pictures) < len(conversation.sources):
            # before any is decoded: their tokens alone may exceed the context
            self.room(least_tokens(conversation, self.encoder, self._config, self.images, options))
        for shown in conversation.sources[len(pictures) :]:
            pictures.append(self._picture(shown, options, stop))
            stop.check()
        return pictures

    def encode(self, conversation: Conversation, pictures: list[Picture]) -> ModelInput:
        """Put a conversation with its pictures into tokens; raises as `ModelInput.of`."""
        return ModelInput.of(conversation, pictures, self.encoder, self._config)

    def measure(self, conversation: Conversation, options: GenerateOptions, stop: Stop) -> PromptSize:
        """How many tokens a conversation takes; raises as `read` and `encode`."""
        prompt = self.encode(conversation, self.read(conversation, [], options, stop))
        return PromptSize(
            tokens=len(prompt.input_ids),
            image_tokens=int(prompt.is_image.sum()),
            context=self._config.text.max_position_embeddings,
            grids=tuple((picture.rows, picture.columns) for picture in prompt.pictures),
        )

    def room(self, prompt_tokens: int) -> int:
        """Tokens that the context has left for the answer.

        Raises:
            ContextError: It has none.
        """
        context = self._config.text.max_position_embeddings
        if prompt_tokens >= context:
            raise too_long(f"{prompt_tokens} tokens", context)
        return context - prompt_tokens

    def _picture(self, shown: Shown, options: GenerateOptions, stop: Stop) -> Picture:
        if isinstance(shown.source, Video):
            return read_clip(shown.source, VideoConfig.from_folder(self._bundle.folder), stop.check)
        detail, longest_edge = shown.detail or options.get("detail", "high"), options.get("longest_edge")
        return cut(open_image(shown.source, stop.check), self.images, detail=detail, longest_edge=longest_edge)
