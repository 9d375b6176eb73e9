"""`llm` with an attachment, a schema and a stream, by the YAML of docs/clients.md. Usage: drive_llm.py URL PICTURE."""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

url, picture = sys.argv[1:]
page = Path(__file__).parents[2].joinpath("docs", "clients.md").read_text("utf-8")
YAML = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
YAML = YAML.replace("http://127.0.0.1:8080", url).replace("smolvlm-256m", "demo")
YAML += f"""\
- model_id: smol-responses
  model_name: demo
  api_base: {url}/v1
  vision: true
  responses: true
"""


def llm(*arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "llm"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def told_directly(question: str) -> str:
    """What the server says to the same, the text before the picture as llm has it."""
    data = "data:image/png;base64," + base64.b64encode(Path(picture).read_bytes()).decode()
    content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": data}}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    with urllib.request.urlopen(f"{url}/v1/chat/completions", body) as response:
        return json.load(response)["choices"][0]["message"]["content"]


with tempfile.TemporaryDirectory() as home:
    environment = os.environ | {"LLM_USER_PATH": home, "OPENAI_API_KEY": "-"}
    (Path(home) / "extra-openai-models.yaml").write_text(YAML, encoding="utf-8")
    question = "Where is the blue star?"
    for model in ("smol", "smol-responses"):
        for stream in ([], ["--no-stream"]):
            assert llm("-m", model, *stream, "-a", picture, question) == told_directly(question)
    schema = {"type": "object", "properties": {"there": {"type": "boolean"}}, "required": ["there"]}
    schema["additionalProperties"] = False
    answer = llm("-m", "smol", "--schema", json.dumps(schema), "-a", picture, "Is there a red circle?")
    assert isinstance(json.loads(answer)["there"], bool), answer
    usage = json.loads(llm("logs", "-n", "1", "--json"))
    assert usage[0]["input_tokens"] > 0, usage
print("ok")
