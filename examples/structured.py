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
SCHEMA = {
    "type": "object",
    "properties": {"The blue star is": {"enum": PLACES}},  # named in words that the demonstration model would use
    "required": ["The blue star is"],
    "additionalProperties": False,
}
shapes, chart = Path(__file__).with_name("shapes.png"), Path(__file__).with_name("chart.png")

with SmolVLM.load() as model:
    answer = model.generate(shapes, "Where is the blue star?", schema=SCHEMA)
    print(json.loads(answer.text)["The blue star is"])
    answer = model.generate(chart, "What is the value of the purple bar?", regex="[0-9]+")
    print(int(answer.text))
    choices = ["The star is red.", "The star is blue."]
    print(model.generate(shapes, "What color is the star?", choices=choices))
