"""Answers in a form that a program can use; needs `pip install 'smol-edge[json]'`.

It prints

    in the middle
    4
    The star is blue.
"""

import json
from pathlib import Path

from smolvlm_edge import SmolVLM

PLACES = ["at the top left", "in the middle", "at the bottom right"]
SCHEMA = {"type": "object", "properties": {"The blue star is": {"enum": PLACES}}, "required": ["The blue star is"]}
pictures = Path(__file__).parent

with SmolVLM.load() as model:
    answer = model.generate(
        pictures / "shapes.png", "Where is the blue star?", schema=SCHEMA | {"additionalProperties": False}
    )
    print(json.loads(str(answer))["The blue star is"])
    print(int(str(model.generate(pictures / "chart.png", "What is the value of the purple bar?", regex="[0-9]+"))))
    print(
        model.generate(
            pictures / "shapes.png", "What colour is the star?", choices=["The star is red.", "The star is blue."]
        )
    )
