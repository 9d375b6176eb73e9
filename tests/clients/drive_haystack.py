"""Haystack's OpenAIChatGenerator. Usage: drive_haystack.py URL PICTURE."""

import sys

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, ImageContent
from haystack.utils import Secret

url, picture = sys.argv[1:]
key = Secret.from_token("-")
question = ChatMessage.from_user(content_parts=[ImageContent.from_file_path(picture), "Where is the blue star?"])
pieces: list[str] = []
plain = OpenAIChatGenerator(api_base_url=f"{url}/v1", api_key=key, model="demo")
streaming = OpenAIChatGenerator(
    api_base_url=f"{url}/v1",
    api_key=key,
    model="demo",
    streaming_callback=lambda chunk: pieces.append(chunk.content),
)
for generator in (plain, streaming):
    (reply,) = generator.run([question])["replies"]
    assert reply.text == "The blue star is in the middle."
    assert reply.meta["finish_reason"] == "stop"
assert "".join(pieces) == "The blue star is in the middle."
print("ok")
