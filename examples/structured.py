"""Answers in a form that a program can use; run with `pip install 'smol-edge[json]'`."""

import json
from pathlib import Path

from smolvlm_edge import SmolVLM

SHAPE = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green", "blue"]}, "shape": {"type": "string", "maxLength": 20}},
    "required": ["colour", "shape"],
    "additionalProperties": False,
}

picture = Path(__file__).parent / "shapes.png"
with SmolVLM.load() as model:
    print(json.loads(model.generate(picture, "describe", schema=SHAPE, max_tokens=60, on_limit="complete").text))
    print(model.generate(picture, "Is there a red circle?", choices=["Yes, there is a red circle.", "No."]))
    print(model.generate(picture, "Where is the blue star?", regex=r"The blue star is (in|at) [a-z ]{1,30}\."))
