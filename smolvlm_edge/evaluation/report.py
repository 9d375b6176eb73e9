"""How often a model was right, by kind of question."""

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text


@dataclass(slots=True)
class Report:
    """The scores of all questions, and what asking them took."""

    scores: dict[str, list[float]] = field(default_factory=dict)
    """Kind -> a score per question."""
    asked: int = 0
    """Questions that this run asked itself; the others were answered by an earlier one."""
    seconds: float = 0.0
    """Spent on them."""

    def add(self, kind: str, score: float) -> None:
        """Count the score of a question."""
        self.scores.setdefault(kind, []).append(score)

    def count_asked(self, seconds: float) -> None:
        """Count a question that was asked just now."""
        self.asked += 1
        self.seconds += seconds

    def lines(self) -> list[tuple[str, int, float]]:
        """Kind, questions and mean score: the kinds by name, and `all` at the end."""
        rows = [(kind, len(scores), fmean(scores)) for kind, scores in sorted(self.scores.items())]
        everything = [score for scores in self.scores.values() for score in scores]
        return [*rows, ("all", len(everything), fmean(everything))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, scores rounded to a ten thousandth."""
        *kinds, (_, questions, right) = self.lines()
        return {
            "questions": questions,
            "right": round(right, 4),
            "kinds": {kind: {"questions": count, "score": round(score, 4)} for kind, count, score in kinds},
            "asked": self.asked,
            "seconds": round(self.seconds, 3),
        }

    def table(self) -> Table:
        """For a person to read."""
        table = Table("kind", "questions", "score %", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for kind, questions, score in self.lines():
            table.add_row(Text(kind), str(questions), f"{100 * score:.1f}")
        return table
