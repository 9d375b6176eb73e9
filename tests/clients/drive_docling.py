"""Docling's ApiVlmEngine with a page, and a tiny granite-docling behind the server. Usage: drive_docling.py URL."""

import json
import sys
import urllib.request
from importlib.util import find_spec
from io import BytesIO
from types import ModuleType
from typing import Any

if find_spec("torch") is None:  # Docling 2.143 imports one module that needs it, of a pipeline for speech
    sys.modules["docling.pipeline.asr_transformers"] = ModuleType("asr_transformers")
    sys.modules["docling.pipeline.asr_transformers"].TransformersAsrDecoder = None

from docling.datamodel.base_models import DocumentStream, InputFormat
from docling.datamodel.pipeline_options import VlmConvertOptions, VlmPipelineOptions
from docling.datamodel.vlm_engine_options import ApiVlmEngineOptions, VlmEngineType
from docling.document_converter import DocumentConverter, PdfFormatOption
from docling.pipeline.vlm_pipeline import VlmPipeline
from reportlab.pdfgen.canvas import Canvas

url = sys.argv[1]
DOCTAGS = (
    "<doctag><section_header_level_1><loc_12><loc_7><loc_80><loc_20>Fog</section_header_level_1>"
    "<otsl><fcel>a<fcel>b<nl><fcel>1<fcel>2<nl></otsl>"
)
"""To the end tag, at which Docling asks to stop."""


def page() -> DocumentStream:
    """A PDF of one page."""
    out = BytesIO()
    canvas = Canvas(out, pagesize=(200, 260))
    canvas.drawString(40, 200, "A page of text.")
    canvas.save()
    return DocumentStream(name="one.pdf", stream=BytesIO(out.getvalue()))


def converted(**params: Any) -> Any:
    """The page as Docling has it, by the recipe of docs/clients.md."""
    options = VlmConvertOptions.from_preset(
        "granite_docling",
        engine_options=ApiVlmEngineOptions(
            engine_type=VlmEngineType.API,
            url=f"{url}/v1/chat/completions",
            params={"model": "granite-docling", "max_tokens": 8192} | params,
            timeout=600,
        ),
    )
    pipeline = VlmPipelineOptions(vlm_options=options, enable_remote_services=True)
    pdf = PdfFormatOption(pipeline_cls=VlmPipeline, pipeline_options=pipeline)
    return DocumentConverter(format_options={InputFormat.PDF: pdf}).convert(page(), raises_on_error=False)


def said(result: Any) -> Any:
    """What came back for the page."""
    (only,) = result.pages
    return only.predictions.vlm_response


# of a model whose answers are chance, DocTags that are the only choice
result = converted(choices=[DOCTAGS])
assert result.status.value == "success", result.errors
assert said(result).text == DOCTAGS
assert said(result).stop_reason.value == "end_of_sequence"
(heading,) = result.document.texts
assert (heading.label.value, heading.text) == ("section_header", "Fog")
(table,) = result.document.tables
assert [cell.text for cell in table.data.table_cells] == ["a", "b", "1", "2"]

# tags that are single tokens of its vocabulary, said again and again: none is left out, and the end is a cut
with urllib.request.urlopen(f"{url}/tokenize", json.dumps({"content": "<fcel>"}).encode()) as response:
    (fcel,) = json.load(response)["tokens"]
result = converted(max_tokens=5, logit_bias={fcel: 100})
assert said(result).text == "<fcel>" * 5
assert said(result).stop_reason.value == "length"
assert result.status.value == "partial_success", result.errors

# a refusal is the page's failure, in the server's words
result = converted(model="nobody")
((number, message),) = [(error.page_no, error.error_message) for error in result.errors]
assert (result.status.value, number) == ("failure", 1)
assert "there is no model 'nobody' here, but granite-docling" in message, message
print("ok")
