"""What transformers answers to the questions of `smol-edge eval`: is the runtime as right as the reference?

    python benchmarks/eval_transformers.py demo/checkpoint --limit 1500

Needs the [parity] extra. Prints the table that `smol-edge eval` prints, and optionally how many replies are the same,
word for word, as those that `smol-edge eval --results FILE` kept.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from transformers import AutoProcessor, Idefics3ForConditionalGeneration

from smolvlm_edge.evaluation.drawn import drawn_questions
from smolvlm_edge.evaluation.questions import Item
from smolvlm_edge.evaluation.report import Report
from smolvlm_edge.evaluation.scores import score


class Reference:
    """A checkpoint in transformers, float32, on two threads."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder, backend="pil")
        self.model = Idefics3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, item: Item, max_tokens: int = 128) -> str:
        """The greedy reply."""
        images = list(item.images())
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": item.prompt}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        options = {"do_image_splitting": False} if item.detail == "low" else {}
        inputs = self.processor(text=text, images=[images] if images else None, return_tensors="pt", **options)
        with torch.inference_mode():
            ids = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return str(self.processor.decode(new, skip_special_tokens=True)).lstrip()


def main() -> None:
    """Ask everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="only the first N questions")
    parser.add_argument("--detail", choices=("low", "high"), default="high")
    parser.add_argument("--results", type=Path, help="replies of `smol-edge eval --results` to compare with")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    reference, report = Reference(arguments.checkpoint), Report()
    questions = drawn_questions(limit=arguments.limit, detail=arguments.detail)
    ours = _replies(arguments.results) if arguments.results else {}
    same = 0
    for item in track(islice(questions.items, questions.count), total=questions.count, console=Console(stderr=True)):
        reply = reference.answer(item)
        same += reply == ours.get(item.index)
        report.add(item.kind, score(reply, item))
    Console(highlight=False).print(report.table())
    if ours:
        print(f"{same} of {questions.count} replies are the same as in {arguments.results}")


def _replies(path: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return {line["index"]: line["reply"] for line in lines}


if __name__ == "__main__":
    main()
