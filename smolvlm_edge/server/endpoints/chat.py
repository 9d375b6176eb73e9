"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.generation.logprobs import Logprobs
from smolvlm_edge.server.answering import Progress, Question
from smolvlm_edge.server.pieces import token_logprob
from smolvlm_edge.server.protocol.chat import (
    AnswerMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
)
from smolvlm_edge.server.protocol.common import Speed, new_id, now
from smolvlm_edge.server.replies import Event, read, streamed, whole
from smolvlm_edge.server.residents import Resident
from smolvlm_edge.server.service import FINGERPRINT, Service, service_of


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    service = service_of(request)
    body = await read(request, ChatRequest)
    resident = service.ready(body.model)
    question = Question(body.generate_options(), await service.sources.messages(body.messages))
    answer = _Answer(service, resident, question)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await streamed(request, answer.events(include_usage=usage))
    return await whole(request, answer.whole())


class _Answer:
    def __init__(self, service: Service, resident: Resident, question: Question) -> None:
        self._service, self._resident, self._question = service, resident, question
        self._id, self._created = new_id("chatcmpl-"), now()

    async def whole(self) -> ChatCompletion:
        answer = await self._service.answering.whole(self._resident, self._question)
        logprobs = self._logprobs(answer.token_ids, answer.logprobs)
        choice = ChatChoice(0, AnswerMessage(answer.text), answer.finish_reason, logprobs)
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._resident.name,
            choices=[choice],
            usage=self._resident.usage(answer.timings),
            timings=Speed.of(answer.timings),
            system_fingerprint=FINGERPRINT,
        )

    async def events(self, *, include_usage: bool) -> AsyncGenerator[Event, None]:
        begun, timings, usage = False, None, None if include_usage else UNSET
        async with aclosing(self._service.answering.answer(self._resident, self._question)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield event
                    continue
                if not begun:
                    begun = True
                    yield self._chunk([ChunkChoice(0, Delta("assistant", ""))], usage)
                logprobs = self._logprobs([event.token_id], [event.logprobs] if event.logprobs else [])
                if event.text or logprobs:
                    choice = ChunkChoice(0, Delta(content=event.text), None, logprobs)
                    yield self._chunk([choice], usage)
                if event.finish_reason:
                    timings = event.timings
                    end = self._chunk([ChunkChoice(0, Delta(), event.finish_reason)], usage)
                    end.timings = Speed.of(timings)
                    yield end
        if include_usage and timings:
            yield self._chunk([], self._resident.usage(timings))

    def _chunk(self, choices: list[ChunkChoice], usage: object) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._id,
            created=self._created,
            model=self._resident.name,
            choices=choices,
            usage=usage,  # type: ignore[arg-type]  # unset, null or counted
            system_fingerprint=FINGERPRINT,
        )

    def _logprobs(self, token_ids: Sequence[int], logprobs: Sequence[Logprobs]) -> ChoiceLogprobs | None:
        """Of all tokens but the one that ends an answer, which is none of it."""
        tokenizer, ends = self._resident.tokenizer, self._resident.eos_token_ids
        pairs = zip(token_ids, logprobs, strict=False)
        told = [token_logprob(tokenizer, id_, each) for id_, each in pairs if id_ not in ends]
        return ChoiceLogprobs(told) if told else None
