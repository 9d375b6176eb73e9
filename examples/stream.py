"""An answer, printed while it is written.

It prints

    The picture shows a bar chart with four bars. The blue bar is the tallest.
    18 tokens
"""

from pathlib import Path

from smolvlm_edge import SmolVLM

with SmolVLM.load() as model:
    for chunk in model.stream(Path(__file__).with_name("chart.png"), "describe"):
        print(chunk.text, end="", flush=True)
    print(f"\n{chunk.timings.generated_tokens} tokens")
