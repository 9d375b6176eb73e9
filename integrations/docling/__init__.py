"""Documents in Docling, read by this family on a plain CPU, in-process and without torch.

    from smolvlm_edge.integrations.docling import SmolEdgeVlmPipeline, SmolEdgeVlmPipelineOptions
    from docling.document_converter import DocumentConverter, PdfFormatOption

    pdf = PdfFormatOption(pipeline_cls=SmolEdgeVlmPipeline, pipeline_options=SmolEdgeVlmPipelineOptions())
    print(DocumentConverter(format_options={"pdf": pdf}).convert("paper.pdf").document.export_to_markdown())

(in this order where torch is not installed: Docling 2.143 imports it for nothing, see `_compat`)

and descriptions of pictures, in any of Docling's pipelines:

    options.do_picture_description, options.allow_external_plugins = True, True
    options.picture_description_options = SmolEdgePictureOptions(model="smolvlm-256m")
"""

from smolvlm_edge.integrations.docling.pages import SmolEdgeEngine, SmolEdgeVlmPipeline, SmolEdgeVlmPipelineOptions
from smolvlm_edge.integrations.docling.pictures import SmolEdgePictureDescription, SmolEdgePictureOptions

__all__ = [
    "SmolEdgeEngine",
    "SmolEdgePictureDescription",
    "SmolEdgePictureOptions",
    "SmolEdgeVlmPipeline",
    "SmolEdgeVlmPipelineOptions",
    "picture_description",
]


def picture_description() -> dict[str, list[type]]:
    """The hook by which Docling finds the class; entry-point group `docling`."""
    return {"picture_description": [SmolEdgePictureDescription]}
