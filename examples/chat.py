"""Questions one after the other: what was shown is remembered, and not encoded again.

It prints

    The star is blue.
    The blue star is in the middle.
    Yes, there is a red circle.
"""

from pathlib import Path

from smolvlm_edge import SmolVLM

with SmolVLM.load() as model:
    chat = model.chat()
    print(chat.ask("What color is the star?", Path(__file__).with_name("shapes.png")))
    for question in ("Where is the blue star?", "Is there a red circle?"):
        print(chat.ask(question))
