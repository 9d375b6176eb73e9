"""Many requests, one after the other; while the model works, the pictures of the next one are read."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from smolvlm_edge.chat import Respond
from smolvlm_edge.conversation.messages import Conversation
from smolvlm_edge.conversation.request import Request
from smolvlm_edge.errors import SmolEdgeError, StoppedError
from smolvlm_edge.generation.answer import Answer, GenerateOptions
from smolvlm_edge.generation.stopping import Stop
from smolvlm_edge.pictures.video import Picture

AHEAD = 1
"""Requests whose pictures are in memory before it is their turn."""


Prepared = tuple[Conversation, list[Picture], GenerateOptions]
"""A request with its pictures read."""


def answer_many(
    requests: Iterable[Request], options: GenerateOptions, prepare: Callable[..., Prepared], respond: Respond
) -> Generator[Answer | SmolEdgeError, None, None]:
    """What `SmolVLM.generate_many` gives."""
    reader = ThreadPoolExecutor(1, "smol-edge pictures")
    ahead: deque[Future[Prepared]] = deque()
    try:
        for request in requests:
            ahead.append(reader.submit(prepare, **{**options, **request}))
            if len(ahead) > AHEAD:
                yield _answer(ahead.popleft(), options, respond)
        while ahead:
            yield _answer(ahead.popleft(), options, respond)
    finally:
        reader.shutdown(cancel_futures=True)


def _answer(prepared: Future[Prepared], shared: GenerateOptions, respond: Respond) -> Answer | SmolEdgeError:
    cancel = shared.get("cancel")
    try:
        conversation, pictures, options = prepared.result()
        stop = Stop(options.get("cancel"), options.get("timeout"))
        stop.check()
        return Answer.of(respond(conversation, pictures, options, stop))
    except SmolEdgeError as error:
        if isinstance(error, StoppedError) and cancel is not None and cancel.is_set():
            raise
        error.__cause__ = error.__context__ = None  # they and the traceback hold on to half-decoded pictures
        return error.with_traceback(None)
