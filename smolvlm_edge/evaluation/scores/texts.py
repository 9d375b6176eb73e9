"""The reply is a text, or has one in it."""

from smolvlm_edge.evaluation.questions import Item

ANLS_THRESHOLD = 0.5


def literal(reply: str, item: Item) -> float:
    """1 if the reply is one of the answers to the letter; only white space at the ends does not count."""
    return float(reply.strip() in item.answers)


def exact(reply: str, item: Item) -> float:
    """1 if the reply is one of the answers; white space, case and punctuation at the end do not count.

    A rule of this project's own, for files of one's own.
    """
    return float(_plain(reply) in map(_plain, item.answers))


def same(reply: str, item: Item) -> float:
    """1 if the reply is one of the answers but for case and white space at the ends: `accuracy` of GQA and OCR-VQA."""
    return float(reply.strip().lower() in (answer.strip().lower() for answer in item.answers))


def contains(reply: str, item: Item) -> float:
    """1 if one of the answers stands anywhere in the reply; case does not count: `OCRBench.evaluate`."""
    return float(any(_line(answer.lower()) in _line(reply.lower()) for answer in item.answers))


def formula(reply: str, item: Item) -> float:
    """The same for handwritten formulas: spaces do not count, case does."""
    return float(any(_line(answer).replace(" ", "") in _line(reply).replace(" ", "") for answer in item.answers))


def anls(reply: str, item: Item) -> float:
    """Average normalised Levenshtein similarity, of the best of the answers; 0 below a similarity of 0.5.

    Biten et al. 2019, "Scene Text Visual Question Answering", arXiv:1905.13648; `anls_compute` and `hit_calculate` for
    DocVQA and InfographicVQA. Case and runs of white space do not count, and a similarity of exactly 0.5 does, as in
    the evaluation script of the DocVQA server; the length that a distance is divided by is that of the text as it
    stands, white space included.
    """
    best = max(_similarity(reply, answer) for answer in item.answers)
    return best if best >= ANLS_THRESHOLD else 0.0


def levenshtein(one: str, other: str) -> int:
    """The fewest characters to insert, delete or replace that turn one text into the other."""
    row = list(range(len(other) + 1))
    for i, character in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            replaced = diagonal + (character != wanted)
            diagonal, row[j] = row[j], min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def _similarity(one: str, other: str) -> float:
    longest = max(len(one.upper()), len(other.upper()))  # "ß" is two letters there
    return 1 - levenshtein(_lower(one), _lower(other)) / longest if longest else 1.0


def _plain(text: str) -> str:
    return _lower(text).rstrip(".,;:!? ")


def _lower(text: str) -> str:
    return " ".join(text.lower().split())


def _line(text: str) -> str:
    return text.strip().replace("\n", " ")
