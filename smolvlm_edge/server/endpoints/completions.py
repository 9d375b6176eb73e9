"""POST /v1/completions: a base model goes on with a text."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.generation.answer import FinishReason
from smolvlm_edge.server.answering import Progress, Question
from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.protocol.common import Speed, new_id, now
from smolvlm_edge.server.protocol.completions import Completion, CompletionChoice, CompletionRequest
from smolvlm_edge.server.replies import Event, read, streamed, whole
from smolvlm_edge.server.residents import Resident
from smolvlm_edge.server.service import FINGERPRINT, Service, service_of


async def completions(request: Request) -> Response:
    """Go on with a text."""
    service = service_of(request)
    body = await read(request, CompletionRequest)
    resident = service.ready(body.model)
    options, text = body.generate_options(), body.text()
    async with service.residents.use(resident) as model:
        if not model.prompt_encoder.is_base:
            raise HttpError(f"{resident.name} answers conversations: ask /v1/chat/completions", param="model")
    images = await service.sources.pictures(body.images or [])
    answer = _Completion(service, resident, Question(options, None, images, text))
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await streamed(request, answer.events(include_usage=usage))
    return await whole(request, answer.whole())


class _Completion:
    def __init__(self, service: Service, resident: Resident, question: Question) -> None:
        self._service, self._resident, self._question = service, resident, question
        self._id, self._created = new_id("cmpl-"), now()

    async def whole(self) -> Completion:
        answer = await self._service.answering.whole(self._resident, self._question)
        body = self._piece(answer.text, answer.finish_reason)
        body.usage, body.timings = self._resident.usage(answer.timings), Speed.of(answer.timings)
        return body

    async def events(self, *, include_usage: bool) -> AsyncGenerator[Event, None]:
        timings = None
        async with aclosing(self._service.answering.answer(self._resident, self._question)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield event
                elif event.text or event.finish_reason:
                    timings, piece = event.timings, self._piece(event.text, event.finish_reason)
                    piece.usage = None if include_usage else UNSET
                    yield piece
        if include_usage and timings:
            end = self._piece("", None)
            end.choices, end.usage = [], self._resident.usage(timings)
            yield end

    def _piece(self, text: str, finish_reason: FinishReason | None) -> Completion:
        return Completion(
            id=self._id,
            created=self._created,
            model=self._resident.name,
            choices=[CompletionChoice(0, text, finish_reason)],
            system_fingerprint=FINGERPRINT,
        )
