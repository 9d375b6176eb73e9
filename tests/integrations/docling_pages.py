"""Run by test_docling.py inside its environment: a three-page PDF through Docling with a bundle, as JSON.

python docling_pages.py BUNDLE [--parallel N] [--fail PAGE]
"""

import argparse
import json
import sys
from io import BytesIO

import smolvlm_edge.integrations.docling  # isort: skip  # noqa: F401 - first: without it Docling 2.143 wants torch
from docling.datamodel.base_models import DocumentStream
from docling.document_converter import DocumentConverter, PdfFormatOption
from reportlab.lib import colors
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Table

from smolvlm_edge import ImageError, SmolVLM
from smolvlm_edge.integrations.docling import SmolEdgeVlmPipeline, SmolEdgeVlmPipelineOptions


def three_pages() -> bytes:
    """Text, a table, a figure; under each a longer bar than the last one, which tells their pictures apart."""
    out = BytesIO()
    canvas = Canvas(out, pagesize=(300, 400))
    canvas.drawString(40, 340, "A page of text.")
    canvas.rect(40, 40, 60, 60, fill=1)
    canvas.showPage()
    table = Table([["a", "b"], ["1", "2"]], style=[("GRID", (0, 0), (-1, -1), 1, colors.black)])
    table.wrapOn(canvas, 200, 200)
    table.drawOn(canvas, 40, 300)
    canvas.rect(40, 40, 120, 60, fill=1)
    canvas.showPage()
    canvas.circle(150, 250, 80)
    canvas.rect(40, 40, 180, 60, fill=1)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


class Watched:
    """What the model was asked, and what it said, page by page; fails at one of them if it is to."""

    def __init__(self, fail):
        self.fail, self.asked = fail, {}
        self.stream = SmolVLM.stream

    def answer(self, model, image, prompt, **options):
        page = round(sum(image.convert("L").point(lambda grey: grey < 128).getdata()) / image.width / image.height * 33)
        self.asked[page] = image.copy(), prompt, options
        if page == self.fail:
            raise ImageError("the page cannot be read")
        return self.stream(model, image, prompt, **options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--fail", type=int)
    arguments = parser.parse_args()
    watched = Watched(arguments.fail)
    SmolVLM.stream = lambda model, image, prompt, **wishes: watched.answer(model, image, prompt, **wishes)  # noqa: PLW0108
    options = SmolEdgeVlmPipelineOptions(model=arguments.bundle, parallel=arguments.parallel)
    options.vlm_options.model_spec.max_new_tokens = 16
    options.vlm_options.scale = 1.0
    pdf = PdfFormatOption(pipeline_cls=SmolEdgeVlmPipeline, pipeline_options=options)
    converter = DocumentConverter(format_options={"pdf": pdf})
    result = converter.convert(DocumentStream(name="three.pdf", stream=BytesIO(three_pages())), raises_on_error=False)
    said = [page.predictions.vlm_response for page in result.pages]
    with SmolVLM.load(arguments.bundle) as model:
        alone = [
            "".join(chunk.text for chunk in watched.stream(model, image, prompt, **wishes))
            for _, (image, prompt, wishes) in sorted(watched.asked.items())
        ]
    print(
        json.dumps(
            {
                "status": result.status.value,
                "errors": [[error.page_no, error.error_message] for error in result.errors],
                "pages": [page.page_no for page in result.pages],
                "texts": [each.text for each in said],
                "stop_reasons": [each.stop_reason.value for each in said],
                "alone": alone,
                "heavy": sorted({"torch", "transformers"} & sys.modules.keys()),
            }
        )
    )


if __name__ == "__main__":
    main()
