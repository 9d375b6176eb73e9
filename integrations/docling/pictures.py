"""Pictures in documents -> their descriptions."""

from collections.abc import Iterable
from typing import ClassVar, Literal

from PIL import Image
from pydantic import Field

from smolvlm_edge.integrations.docling._compat import (
    ApiImageRequestResult,
    PictureDescriptionBaseModel,
    PictureDescriptionBaseOptions,
)
from smolvlm_edge.integrations.docling.answering import ask_all, opened


class SmolEdgePictureOptions(PictureDescriptionBaseOptions):
    """What describes pictures, and how."""

    kind: ClassVar[Literal["smol_edge"]] = "smol_edge"
    model: str = "smolvlm-256m"
    """As `SmolVLM.load` takes it."""
    quant: str = "int4"
    prompt: str = "Describe this image in a few sentences."
    max_tokens: int = Field(default=200, ge=1)
    detail: Literal["low", "auto", "high"] = "auto"
    threads: int | None = None
    parallel: int = Field(default=1, ge=1)


class SmolEdgePictureDescription(PictureDescriptionBaseModel):
    """Docling's stage that describes pictures, on a bundle."""

    options: SmolEdgePictureOptions

    @classmethod
    def get_options_type(cls) -> type[PictureDescriptionBaseOptions]:
        """The options by which Docling finds this class."""
        return SmolEdgePictureOptions

    def __init__(self, **keywords: object) -> None:
        """As Docling makes it."""
        super().__init__(**keywords)  # type: ignore[arg-type]
        self.provenance = f"smol-edge: {self.options.model}"

    def _annotate_images(self, images: Iterable[Image.Image]) -> Iterable[ApiImageRequestResult]:
        options = self.options
        model = opened(options.model, options.quant, options.threads, options.parallel)
        wishes = {"max_tokens": options.max_tokens, "detail": options.detail, "stop_loops": True}
        questions = [(image, options.prompt, wishes) for image in images]
        for told in ask_all(model, questions, options.parallel):
            yield ApiImageRequestResult(told.text, told.tokens, told.stop_reason, error=told.error)
