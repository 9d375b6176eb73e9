"""How often a model is right: questions with known answers are asked one by one, and the replies are scored.

- `questions`: what is asked, and the wording of a prompt
- `drawn`: questions about held-out drawn scenes
- `tsv`: questions from a file
- `scores`: a reply -> a score from 0 to 1, by the rules that the benchmarks published
- `results`: replies on disk, so that an interrupted run continues
- `report`: the mean by kind of question
"""

import time
from collections.abc import Callable
from itertools import islice

from smolvlm_edge.errors import SmolEdgeError
from smolvlm_edge.evaluation.questions import Item, Questions
from smolvlm_edge.evaluation.report import Report
from smolvlm_edge.evaluation.results import Results
from smolvlm_edge.evaluation.scores import score
from smolvlm_edge.model import SmolVLM


def ask_all(
    model: SmolVLM, questions: Questions, results: Results, max_tokens: int, on_answer: Callable[[], None]
) -> Report:
    """Ask every question that `results` holds no reply to, and score all replies.

    Args:
        model: Who is asked.
        questions: What is asked.
        results: Replies of earlier runs; every new one is added at once.
        max_tokens: Longest reply.
        on_answer: Called after every question, whether it was asked now or earlier.

    Raises:
        SmolEdgeError: A question cannot be asked, or a picture cannot be read; the message names it.
    """
    report = Report()
    for number, item in enumerate(islice(questions.items, questions.count)):
        reply = results.replies.get(item.index)
        if reply is None:
            start = time.perf_counter()
            try:
                reply = _ask(model, item, max_tokens)
            except SmolEdgeError as error:
                hint = f"; --limit {number} stops before it" if number else ""
                raise type(error)(f"{item.name}: {error}{hint}") from error
            report.count_asked(time.perf_counter() - start)
            results.add(item, reply)
        report.add(item.kind, score(reply, item))
        on_answer()
    return report


def _ask(model: SmolVLM, item: Item, max_tokens: int) -> str:
    return model.generate(list(item.images()), item.prompt, max_tokens=max_tokens, detail=item.detail).text
