"""Everything that was measured of one bundle, for people and as plain values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

from rich.table import Column, Table
from rich.text import Text

from smolvlm_edge.bundle import HALVES, SUFFIXES, Bundle, Targets
from smolvlm_edge.quality.distributions import TextFidelity
from smolvlm_edge.quality.pictures import PictureFidelity, TileError
from smolvlm_edge.quality.tensors import TensorError


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on disk."""

    graphs: dict[str, int]
    """Every graph with its weights."""
    all_files: int

    @classmethod
    def of(cls, bundle: Bundle, targets: Targets) -> Self:
        """The sizes that the manifest names, without graphs that are not used."""
        sizes = {name: entry.size for name, entry in bundle.files_for(targets).items()}
        graphs = {
            graph: sum(sizes[f"{graph}{suffix}"] for suffix in SUFFIXES[target])
            for half, target in targets.items()
            for graph in HALVES[half]
        }
        return cls(graphs, sum(sizes.values()))

    @property
    def text(self) -> int:
        """Token table and decoder with its head: what llama.cpp's file of a text model holds."""
        return self.graphs["embed_tokens"] + self.graphs["decoder"]

    @property
    def vision(self) -> int:
        """Vision encoder and connector."""
        return self.graphs["vision_encoder"] + self.graphs["connector"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.graphs, "text": self.text, "vision": self.vision, "all_files": self.all_files}


@dataclass(frozen=True, slots=True)
class Quality:
    """A bundle beside its reference."""

    name: str
    recipe: str
    sizes: Sizes
    text: TextFidelity
    pictures: tuple[PictureFidelity, ...]
    """Empty if none was asked about."""
    tensors: tuple[TensorError, ...]
    """Every matrix, the worst first."""

    @property
    def tiles(self) -> list[TileError]:
        """Of all pictures."""
        return [tile for picture in self.pictures for tile in picture.tiles]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "size_bytes": self.sizes.to_dict(),
            "text": self.text.to_dict(),
            "pictures": [picture.to_dict() for picture in self.pictures],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }


Rows = Mapping[str, Callable[[Quality], str]]
"""Title -> what stands there for a bundle."""
SIZE_ROWS: Rows = {
    "token table and decoder, MB": lambda quality: f"{quality.sizes.text / 1e6:.1f}",
    "vision encoder and connector, MB": lambda quality: f"{quality.sizes.vision / 1e6:.1f}",
    "all files, MB": lambda quality: f"{quality.sizes.all_files / 1e6:.1f}",
}
TEXT_ROWS: Rows = {
    "KL(reference || bundle), nats": lambda quality: f"{quality.text.kl:.4f}",
    "top token the same, %": lambda quality: f"{100 * quality.text.top1:.1f}",
    "perplexity": lambda quality: f"{quality.text.perplexity:.3f}",
    "perplexity by the reference's": lambda quality: f"{quality.text.perplexity_ratio:.4f}",
}
PICTURE_ROWS: Rows = {
    "image features: error, %": lambda quality: f"{100 * fmean(tile.relative_error for tile in quality.tiles):.2f}",
    "  of the worst tile, %": lambda quality: f"{100 * max(tile.relative_error for tile in quality.tiles):.2f}",
    "  lowest cosine": lambda quality: f"{min(tile.lowest_cosine for tile in quality.tiles):.5f}",
    "answers: tokens up to the first difference": lambda quality: (
        f"{sum(each.same_tokens for each in quality.pictures)} of "
        f"{sum(each.reference_tokens for each in quality.pictures)}"
    ),
    "  the same to the letter": lambda quality: (
        f"{sum(each.same_text for each in quality.pictures)} of {len(quality.pictures)}"
    ),
}


def summary(found: Sequence[Quality]) -> Table:
    """A column for every bundle, a row for everything that was measured."""
    names = (Column(Text(quality.name), justify="right", no_wrap=True) for quality in found)
    table = Table("", *names, box=None, pad_edge=False)
    rows = {**SIZE_ROWS, **TEXT_ROWS, **(PICTURE_ROWS if found[0].pictures else {})}
    for title, cell in rows.items():
        table.add_row(title, *map(cell, found))
    return table


def worst_tensors(quality: Quality, limit: int | None = None) -> Table:
    """The matrices of a bundle that rounding changed most."""
    numbers = (Column(title, justify="right") for title in ("shape", "bits per weight", "error %"))
    table = Table(Column(Text(f"matrices of {quality.name}, the worst first")), *numbers, box=None, pad_edge=False)
    for tensor in quality.tensors[:limit]:
        shape = " × ".join(map(str, tensor.shape))
        table.add_row(Text(tensor.name), shape, f"{tensor.bits_per_weight:.2f}", f"{100 * tensor.relative_error:.3f}")
    return table
