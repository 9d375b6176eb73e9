"""How often a model is right: questions with known answers are asked, and the replies are scored.

- `questions`: what is asked, and the wording of a prompt
- `family`: the same as the family's publishers word it
- `drawn`: questions about held-out drawn scenes
- `tsv`, `rows`: questions from a file
- `datasets`: the data sets that VLMEvalKit knows by name, their wording and their rules
- `scores`: a reply -> a score from 0 to 1, by the kit's rules
- `results`: replies on disk, so that an interrupted run continues
- `report`: the mean by kind of question
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice

from smolvlm_edge.conversation.request import Request
from smolvlm_edge.errors import SmolEdgeError
from smolvlm_edge.evaluation.family import Wording
from smolvlm_edge.evaluation.questions import Item, Questions
from smolvlm_edge.evaluation.report import Report
from smolvlm_edge.evaluation.results import Results
from smolvlm_edge.evaluation.scores import score
from smolvlm_edge.model import SmolVLM


def ask_all(
    model: SmolVLM,
    questions: Questions,
    results: Results,
    max_tokens: int,
    on_answer: Callable[[], None],
    word: Callable[[str, int], Wording],
) -> Report:
    """Ask every question that `results` holds no reply to, and score all replies.

    Args:
        model: Who is asked, as many questions at once as it answers.
        questions: What is asked.
        results: Replies of earlier runs; every new one is added at once.
        max_tokens: Longest reply.
        on_answer: Called after every question, whether it was asked now or earlier.
        word: Puts a prompt about so many pictures as the model is asked it; see `family`.

    Raises:
        SmolEdgeError: A question cannot be asked, or a picture cannot be read; the message names it.
    """
    report, start = Report(), time.perf_counter()
    asked: deque[tuple[int, Item]] = deque()

    def count(item: Item, reply: str) -> None:
        report.add(item.kind, score(reply, item))
        on_answer()

    def requests() -> Iterator[Request]:
        for number, item in enumerate(islice(questions.items, questions.count)):
            if (reply := results.replies.get(item.index)) is not None:
                count(item, reply)
                continue
            asked.append((number, item))
            with _named(number, item):
                images = list(item.images())
            messages = word(item.prompt, len(images)).messages(images)
            yield Request(messages=messages, max_tokens=max_tokens, detail=item.detail)

    with closing(model.generate_many(requests())) as answers:
        for answer in answers:
            number, item = asked.popleft()
            with _named(number, item):
                if isinstance(answer, Exception):
                    raise answer
            report.count_asked(time.perf_counter() - start)
            start = time.perf_counter()
            reply = answer.text.strip()  # begun for the model, it begins with a space
            results.add(item, reply)
            count(item, reply)
    return report


@contextmanager
def _named(number: int, item: Item) -> Iterator[None]:
    """What goes wrong with a question says with which."""
    try:
        yield
    except SmolEdgeError as error:
        hint = f"; --limit {number} stops before it" if number else ""
        raise type(error)(f"{item.name}: {error}{hint}") from error
