"""The openai package against a server: every body is read by its own types. Usage: drive_openai.py URL PICTURE."""

import base64
import sys
from pathlib import Path
from typing import Literal

from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

url, picture = sys.argv[1:]
client = OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
model = client.models.list().data[0].id
data_url = "data:image/png;base64," + base64.b64encode(Path(picture).read_bytes()).decode()
question = [
    {"type": "image_url", "image_url": {"url": data_url, "detail": "high"}},
    {"type": "text", "text": "Where is the blue star?"},
]
messages = [{"role": "user", "content": question}]


class Star(BaseModel):
    colour: Literal["red", "blue"]
    there: bool


# a whole answer
raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, logprobs=True, top_logprobs=3)
answer = ChatCompletion.model_validate_json(raw.text, strict=True)
assert answer.choices[0].message.content == "The blue star is in the middle.", answer
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
assert answer.choices[0].finish_reason == "stop"
logprobs = answer.choices[0].logprobs.content
assert b"".join(bytes(each.bytes) for each in logprobs).decode().strip() == answer.choices[0].message.content
assert all(len(each.top_logprobs) == 3 for each in logprobs)

# a stream, by hand and by the helper
chunks = list(
    client.chat.completions.create(model=model, messages=messages, stream=True, stream_options={"include_usage": True})
)
assert len({chunk.id for chunk in chunks}) == 1
assert chunks[0].choices[0].delta.role == "assistant"
assert chunks[-1].choices == []
assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
assert text == answer.choices[0].message.content
with client.chat.completions.stream(model=model, messages=messages) as stream:
    stream.until_done()
    assert stream.get_final_completion().choices[0].message.content == text

# a form
parsed = client.chat.completions.parse(model=model, messages=messages, response_format=Star)
assert isinstance(parsed.choices[0].message.parsed, Star)

# responses
content = [
    {"type": "input_image", "image_url": data_url, "detail": "high"},
    {"type": "input_text", "text": question[1]["text"]},
]
raw = client.responses.with_raw_response.create(model=model, input=[{"role": "user", "content": content}])
response = Response.model_validate_json(raw.text)
assert client.responses.create(model=model, input=[{"role": "user", "content": content}]).output_text == text
events = list(client.responses.create(model=model, input=[{"role": "user", "content": content}], stream=True))
assert [event.sequence_number for event in events] == list(range(len(events)))
assert events[-1].type == "response.completed"
assert events[-1].response.output_text == text
with client.responses.stream(model=model, input="Hello") as stream:
    stream.until_done()
    assert stream.get_final_response().status in ("completed", "incomplete")
assert isinstance(client.responses.parse(model=model, input="Is it blue?", text_format=Star).output_parsed, Star)
assert client.responses.input_tokens.count(model=model, input="Hello").input_tokens > 0

# files
file = client.files.create(file=Path(picture), purpose="vision")
content[0] = {"type": "input_image", "file_id": file.id, "detail": "high"}
assert client.responses.create(model=model, input=[{"role": "user", "content": content}]).output_text == text
assert [each.id for each in client.files.list()] == [file.id]
assert client.files.delete(file.id).deleted


# refusals
def refused(error: type[APIStatusError], **wish: object) -> APIStatusError:
    try:
        client.chat.completions.create(messages=messages, **wish)
    except error as refusal:
        return refusal
    raise AssertionError(wish)


assert refused(NotFoundError, model="nobody").code == "model_not_found"
assert refused(BadRequestError, model=model, n=2).param == "n"
print("ok")
