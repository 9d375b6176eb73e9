"""Run by test_docling.py inside its environment: describes the picture in a document, and prints JSON.

python docling_pictures.py PICTURE
"""

import json
import sys
from base64 import b64encode
from io import BytesIO
from pathlib import Path

from smolvlm_edge.integrations.docling import SmolEdgePictureOptions  # isort: skip  # first, or Docling wants torch
from docling.datamodel.backend_options import HTMLBackendOptions
from docling.datamodel.base_models import DocumentStream, InputFormat
from docling.datamodel.pipeline_options import ConvertPipelineOptions
from docling.document_converter import DocumentConverter, HTMLFormatOption

data = b64encode(Path(sys.argv[1]).read_bytes()).decode()
page = f'<html><body><p>Before.</p><img src="data:image/png;base64,{data}"/><p>After.</p></body></html>'
options = ConvertPipelineOptions(
    do_picture_description=True,
    allow_external_plugins=True,
    picture_description_options=SmolEdgePictureOptions(model="demo", prompt="describe"),
)
backend = HTMLBackendOptions(fetch_images=True, enable_local_fetch=True)
html = HTMLFormatOption(pipeline_options=options, backend_options=backend)
converter = DocumentConverter(allowed_formats=[InputFormat.HTML], format_options={InputFormat.HTML: html})
document = converter.convert(DocumentStream(name="page.html", stream=BytesIO(page.encode()))).document
said = [[each.meta.description.text, each.meta.description.created_by] for each in document.pictures]
print(json.dumps({"said": said, "heavy": sorted({"torch", "transformers"} & sys.modules.keys())}))
