"""What is asked: pictures with a prompt, or messages; and the options of the answer."""

from collections.abc import Sequence

from smolvlm_edge.conversation.messages import Conversation, RawMessage, Source, ask, check_last_turn, read_messages
from smolvlm_edge.errors import RequestError
from smolvlm_edge.generation.answer import GenerateOptions, check_options
from smolvlm_edge.pictures.images import check_image
from smolvlm_edge.pictures.video import Video


class Request(GenerateOptions, total=False):
    """The keywords of `SmolVLM.generate`; `SmolVLM.generate_many` takes many of them."""

    images: Source | Sequence[Source]
    prompt: str
    messages: Sequence[RawMessage]


def read_request(
    images: Source | Sequence[Source], prompt: str, messages: Sequence[RawMessage] | None, options: GenerateOptions
) -> Conversation:
    """The conversation that a request means; arguments as `SmolVLM.stream` takes them.

    Raises:
        RequestError: It asks nothing or two things, or an option makes no sense.
        ImageError: A picture or video is missing.
    """
    check_options(options)
    allow_paths = options.get("allow_paths", True)
    if messages is None:
        return read_messages([ask(images, prompt)], allow_paths=allow_paths)
    if prompt or not (isinstance(images, list | tuple) and not images):
        raise RequestError("pass messages, or pictures with a prompt, not both")
    conversation = read_messages(messages, allow_paths=allow_paths)
    check_last_turn(conversation)
    return conversation


def check_request(images: Sequence[Source], prompt: str, options: GenerateOptions) -> None:
    """Refuse what every model would refuse; for who is about to fetch one.

    Raises:
        RequestError: The prompt is empty, or an option makes no sense.
        ImageError: A picture or video is missing, or a picture is none.
    """
    for shown in read_request(images, prompt, None, options).sources:
        if not isinstance(shown.source, Video):
            check_image(shown.source)
