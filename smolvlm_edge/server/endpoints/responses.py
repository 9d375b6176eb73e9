"""POST /v1/responses."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.generation.answer import FinishReason
from smolvlm_edge.generation.timings import Timings
from smolvlm_edge.server.answering import Progress, Question
from smolvlm_edge.server.protocol.common import new_id, now
from smolvlm_edge.server.protocol.responses import (
    IncompleteDetails,
    OutputMessage,
    OutputText,
    ResponseBody,
    ResponsesRequest,
    ResponseUsage,
)
from smolvlm_edge.server.replies import Event, read, streamed, whole
from smolvlm_edge.server.residents import Resident
from smolvlm_edge.server.service import Service, service_of


async def responses(request: Request) -> Response:
    """Answer a conversation; nothing of it is kept."""
    service = service_of(request)
    body = await read(request, ResponsesRequest)
    resident = service.ready(body.model)
    question = Question(body.generate_options(), await service.sources.messages(body.messages()))
    answer = _Response(service, resident, question, body)
    return await (streamed(request, answer.events()) if body.stream else whole(request, answer.whole()))


class _Response:
    def __init__(self, service: Service, resident: Resident, question: Question, body: ResponsesRequest) -> None:
        self._service, self._resident, self._question, self._body = service, resident, question, body
        self._id, self._item_id, self._created = new_id("resp_"), new_id("msg_"), now()
        self._events = 0

    async def whole(self) -> ResponseBody:
        answer = await self._service.answering.whole(self._resident, self._question)
        return self._done(answer.text, answer.finish_reason, answer.timings)

    async def events(self) -> AsyncGenerator[Event, None]:
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        text, end = "", None
        async with aclosing(self._service.answering.answer(self._resident, self._question)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield event
                    continue
                if end is None:
                    for begin in self._begin(place):
                        yield begin
                end, text = event, text + event.text
                if event.text:
                    yield self._event("response.output_text.delta", **place, delta=event.text, logprobs=[])
        assert end is not None
        assert end.finish_reason is not None
        done = self._done(text, end.finish_reason, end.timings)
        (item,) = done.output
        yield self._event("response.output_text.done", **place, text=text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=OutputText(text=text))
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{done.status}", response=done)

    def _begin(self, place: dict[str, Any]) -> list[Event]:
        empty = self._body_of("in_progress", [])
        item = OutputMessage(id=self._item_id, status="in_progress", content=[])
        return [
            self._event("response.created", response=empty),
            self._event("response.in_progress", response=empty),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", **place, part=OutputText(text="")),
        ]

    def _event(self, type_: str, **fields: Any) -> dict[str, Any]:
        self._events += 1
        return {"type": type_, "sequence_number": self._events - 1, **fields}

    def _done(self, text: str, finish_reason: FinishReason, timings: Timings) -> ResponseBody:
        status: Literal["completed", "incomplete"] = "completed" if finish_reason == "stop" else "incomplete"
        item = OutputMessage(id=self._item_id, status=status, content=[OutputText(text=text)])
        body = self._body_of(status, [item])
        body.usage = ResponseUsage.of(self._resident.usage(timings))
        if status == "incomplete":
            body.incomplete_details = IncompleteDetails("max_output_tokens")
        return body

    def _body_of(
        self, status: Literal["in_progress", "completed", "incomplete"], output: list[OutputMessage]
    ) -> ResponseBody:
        body = self._body
        return ResponseBody(
            id=self._id,
            created_at=self._created,
            status=status,
            model=self._resident.name,
            output=output,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            text=body.text,
        )
