"""Two questions in an event loop, which goes on meanwhile; the answers are computed in turn, in threads.

It prints

    Where is the blue star? The blue star is in the middle.
    What color is the triangle? The triangle is green.
"""

import asyncio
from pathlib import Path

from smolvlm_edge import SmolVLM


async def ask(model: SmolVLM, question: str) -> str:
    """The question and its answer."""
    answer = [chunk.text async for chunk in model.astream(Path(__file__).with_name("shapes.png"), question)]
    return f"{question} {''.join(answer)}"


async def main() -> None:
    """Ask both at once."""
    with SmolVLM.load() as model:
        questions = ("Where is the blue star?", "What color is the triangle?")
        print(*await asyncio.gather(*(ask(model, question) for question in questions)), sep="\n")


asyncio.run(main())
