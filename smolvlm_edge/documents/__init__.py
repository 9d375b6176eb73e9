"""Pages of a document -> pictures for a Docling model, and its DocTags -> Markdown, HTML or Docling's JSON.

Needs the extra [convert]: pypdfium2 draws pages, docling-core knows what DocTags mean.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smolvlm_edge.errors import EngineError, ImageError, RequestError

if TYPE_CHECKING:
    from PIL import Image
    from pypdfium2 import PdfDocument

Format = Literal["markdown", "html", "json", "doctags"]
SUFFIXES: dict[Format, str] = {"markdown": ".md", "html": ".html", "json": ".json", "doctags": ".doctags"}
SCALE = 2.0
"""Pixels for a PDF's point, 1/72 inch: what Docling draws for these models (its `VlmConvertOptions.scale`)."""
MAX_EDGE = 8192
"""Pixels of a page's longer side; a plan of several metres is drawn coarser, or it would take gigabytes."""


def page_count(path: Path) -> int:
    """How many pages a PDF has.

    Raises:
        ImageError: It is missing, damaged, locked or none.
        EngineError: The extra is not installed.
    """
    with closing(_opened(path)) as document:
        return len(document)


def draw_pages(path: Path, numbers: Sequence[int]) -> Iterator["Image.Image"]:
    """Pictures of pages, which are counted from 1, one at a time; errors as `page_count`."""
    with closing(_opened(path)) as document:
        for number in numbers:
            with closing(document[number - 1]) as page:
                scale = min(SCALE, MAX_EDGE / max(page.get_size()))
                yield page.render(scale=scale).to_pil().convert("RGB")


def read_numbers(text: str, count: int) -> list[int]:
    """The pages that `--pages` means, such as `3`, `3-7`, `3-` or `1,4-6`, in the order of the document.

    Raises:
        RequestError: It is none of these, or the document has no such page.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        begin, end = first or "1", last or (str(count) if dash else first)
        if not (begin.isdecimal() and end.isdecimal() and 1 <= int(begin) <= int(end)):
            raise RequestError(f"pages: {part.strip()[:20]!r} is no page and no range of pages: as in 3-7 or 1,4-6")
        if int(end) > count:
            raise RequestError(f"pages: the document has {count} pages, none with the number {int(end)}")
        numbers.update(range(int(begin), int(end) + 1))
    return sorted(numbers)


def assemble(name: str, pages: Sequence[tuple[str, "Image.Image"]], form: Format) -> str:
    """One document of the DocTags and the pictures of its pages, in order.

    Raises:
        EngineError: The extra is not installed.
    """
    if form == "doctags":
        return "\n".join(tags for tags, _ in pages) + "\n"
    try:
        from docling_core.types.doc.doctags import DocTagsDocument  # noqa: PLC0415 - an extra
        from docling_core.types.doc.document import DoclingDocument  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    tags = [tags for tags, _ in pages]
    pictures: list[Path | Image.Image] = [picture for _, picture in pages]
    pairs = DocTagsDocument.from_doctags_and_image_pairs(tags, pictures)
    document: Any = DoclingDocument.load_from_doctags(pairs, document_name=name)
    match form:
        case "markdown":
            return f"{document.export_to_markdown()}\n"
        case "html":
            return str(document.export_to_html())
        case _:
            return json.dumps(document.export_to_dict(), ensure_ascii=False) + "\n"


def _opened(path: Path) -> "PdfDocument":
    try:
        import pypdfium2  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if not path.is_file():
        raise ImageError(f"{path}: " + ("a PDF is a file, not a folder" if path.is_dir() else "there is no such file"))
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        locked = "assword" in str(error)
        why = "it is locked with a password: save a copy without one" if locked else "it is no PDF, or a damaged one"
        raise ImageError(f"{path} cannot be read: {why}") from error


def _missing(error: ModuleNotFoundError) -> EngineError:
    return EngineError.of_missing("documents need", error.name, "convert")
