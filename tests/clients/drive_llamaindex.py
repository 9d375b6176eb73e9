"""LlamaIndex's OpenAILike. Usage: drive_llamaindex.py URL PICTURE."""

import sys

from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike

url, picture = sys.argv[1:]
model = OpenAILike(model="demo", api_base=f"{url}/v1", api_key="-", is_chat_model=True, max_tokens=100)
question = ChatMessage(role="user", blocks=[ImageBlock(path=picture), TextBlock(text="Where is the blue star?")])
answer = "The blue star is in the middle."
assert model.chat([question]).message.content == answer
assert list(model.stream_chat([question]))[-1].message.content == answer
said = [question, ChatMessage(role="assistant", content=answer)]
said.append(ChatMessage(role="user", content="Is there a red circle?"))
assert model.chat(said).message.content.startswith("Yes")
print("ok")
