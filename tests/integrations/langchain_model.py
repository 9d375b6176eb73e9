"""Run by test_langchain.py in LangChain's environment: its own tests of chat models, and ours of what is said."""

import asyncio
import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel

from smolvlm_edge import ImageError, RequestError, SmolVLM
from smolvlm_edge.integrations.langchain import ChatSmolEdge

EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPES = "The picture shows a large red circle at the top left, a small blue star in the middle"


class _Properties:
    """What there is to test."""

    chat_model_class = ChatSmolEdge
    chat_model_params = {"detail": "low", "on_limit": "complete"}  # noqa: RUF012 - the tests read plain attributes
    has_tool_calling = False
    has_structured_output = True
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = False
    supports_image_tool_message = False  # they bind the tool, too; a message of one is below
    returns_usage_metadata = True
    supported_usage_metadata_details = {"invoke": [], "stream": []}  # noqa: RUF012


class TestUnits(_Properties, ChatModelUnitTests):
    """langchain-tests."""


class TestIntegration(_Properties, ChatModelIntegrationTests):
    """langchain-tests, with the demonstration model."""

    chat_model_params = {**_Properties.chat_model_params, "max_tokens": 48}  # noqa: RUF012
    supports_model_override = True
    model_override_value = "demo"

    @pytest.fixture(autouse=True)
    def _pictures_from_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They fetch pictures from the web, to hand them on as base64."""
        here = SimpleNamespace(content=(EXAMPLES / "shapes.png").read_bytes())
        monkeypatch.setattr(httpx, "get", lambda *_, **__: here)


def block(name: str, **more: Any) -> dict[str, Any]:
    data = base64.b64encode((EXAMPLES / name).read_bytes()).decode()
    return {"type": "image", "base64": data, "mime_type": "image/png", **more}


def ask(*names: str, words: str = "describe") -> list[HumanMessage]:
    return [HumanMessage([*map(block, names), {"type": "text", "text": words}])]


@pytest.fixture(scope="module")
def model() -> ChatSmolEdge:
    return ChatSmolEdge()


def test_what_is_said_about_a_picture_is_what_generate_says(model: ChatSmolEdge) -> None:
    said = model.invoke(ask("shapes.png"))
    with SmolVLM.load("demo") as ours:
        answer = ours.generate(EXAMPLES / "shapes.png", "describe")
    assert said.text.startswith(SHAPES)
    assert said.text == answer.text
    assert said.usage_metadata["input_tokens"] == answer.timings.prompt_tokens
    assert said.usage_metadata["output_tokens"] == len(answer.token_ids)
    assert said.response_metadata["finish_reason"] == answer.finish_reason == "stop"
    as_openai = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{block('shapes.png')['base64']}"}}
    assert model.invoke([HumanMessage([as_openai, {"type": "text", "text": "describe"}])]).text == answer.text


def test_pieces_come_one_by_one_with_the_cost_at_the_end(model: ChatSmolEdge) -> None:
    chunks = list(model.stream(ask("shapes.png")))
    assert len(chunks) > 5
    assert "".join(chunk.text for chunk in chunks).startswith(SHAPES)
    assert [chunk.usage_metadata is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]

    async def read() -> str:
        return "".join([chunk.text async for chunk in model.astream(ask("shapes.png"))])

    assert asyncio.run(read()).startswith(SHAPES)
    assert asyncio.run(model.ainvoke(ask("shapes.png"))).text.startswith(SHAPES)


def test_a_conversation_has_turns(model: ChatSmolEdge) -> None:
    first = ask("before.png", "after.png", words="What changed?")
    changed = "The star changed from blue to orange."
    assert model.invoke([SystemMessage("Be brief."), *first]).text
    assert model.invoke([*first, AIMessage(changed), HumanMessage("What changed?")]).text == changed
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    shown = ToolMessage([block("shapes.png")], tool_call_id="1", name="look")
    assert model.invoke([HumanMessage("Look."), call, shown, HumanMessage("describe")]).text


def test_options_are_bound_or_the_models_own(model: ChatSmolEdge) -> None:
    assert model.bind(max_tokens=3).invoke(ask("shapes.png")).response_metadata["finish_reason"] == "length"
    assert ChatSmolEdge(max_tokens=3).invoke(ask("shapes.png")).usage_metadata["output_tokens"] == 3
    assert model.invoke(ask("shapes.png"), stop=[" at the top"]).text == "The picture shows a large red circle"
    assert ChatSmolEdge(stop=[" at the top"]).invoke(ask("shapes.png")).text == "The picture shows a large red circle"
    assert model.bind(choices=["red", "blue"]).invoke(ask("shapes.png")).text in {"red", "blue"}


def test_a_chain_ends_in_an_object(model: ChatSmolEdge) -> None:
    class Counted(BaseModel):
        circles: int
        is_there_a_star: bool

    template = ChatPromptTemplate([("human", [block("shapes.png"), {"type": "text", "text": "{question}"}])])
    chain = template | model.with_structured_output(Counted, on_limit="complete")
    assert isinstance(chain.invoke({"question": "describe"}), Counted)
    both = model.with_structured_output(Counted.model_json_schema(), include_raw=True, on_limit="complete")
    found = both.invoke(ask("shapes.png"))
    assert found["parsed"].keys() == {"circles", "is_there_a_star"}
    assert found["parsing_error"] is None
    assert found["raw"].usage_metadata["output_tokens"] > 0


def test_what_is_no_picture_is_told_and_files_are_not_read(model: ChatSmolEdge) -> None:
    with pytest.raises(ImageError):
        model.invoke([HumanMessage([{"type": "image", "base64": "bm8gcGljdHVyZQ==", "mime_type": "image/png"}])])
    path = str(EXAMPLES / "shapes.png")
    named = [HumanMessage([{"type": "image", "url": path}, {"type": "text", "text": "describe"}])]
    with pytest.raises(RequestError):
        model.invoke(named)
    assert ChatSmolEdge(allow_paths=True).invoke(named).text.startswith(SHAPES)
    with pytest.raises(RequestError):
        model.invoke([HumanMessage([{"type": "image", "file_id": "1"}, {"type": "text", "text": "describe"}])])
