"""Many pictures, the next one read while the model works; one that fails does not end the others.

It prints

    chart.png: The picture shows a bar chart with four bars. The blue bar is the tallest.
    missing.png: ImageError
    clip-1.png: The picture shows a large red circle on the left.
"""

from pathlib import Path

from smolvlm_edge import Answer, Request, SmolVLM

names = ["chart.png", "missing.png", "clip-1.png"]
with SmolVLM.load() as model:
    requests = (Request(images=Path(__file__).with_name(name), prompt="describe") for name in names)
    for name, answer in zip(names, model.generate_many(requests), strict=True):
        print(f"{name}: {answer if isinstance(answer, Answer) else type(answer).__name__}")
