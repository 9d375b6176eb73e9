"""Pages -> DocTags, by granite-docling or SmolDocling."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from smolvlm_edge.integrations.docling._compat import (
    BaseVlmEngine,
    VlmConvertOptions,
    VlmEngineInput,
    VlmEngineOutput,
    VlmPipeline,
    VlmPipelineOptions,
    stage_of,
)
from smolvlm_edge.integrations.docling.answering import ask_all, opened

if TYPE_CHECKING:
    from smolvlm_edge import SmolVLM

PRESET = "granite_docling"


class SmolEdgeVlmPipelineOptions(VlmPipelineOptions):
    """Docling's options of pages that are read whole, and what reads them here."""

    vlm_options: VlmConvertOptions = Field(default_factory=lambda: VlmConvertOptions.from_preset(PRESET))
    model: str | None = None
    """As `SmolVLM.load` takes it; by default the repository that the preset names."""
    quant: str = "int4"
    threads: int | None = None
    parallel: int = Field(default=1, ge=1)
    """Pages that are read at once; Docling hands out `settings.perf.page_batch_size` of them at a time, 4 as it is."""
    stop_loops: bool = True
    """End a page that repeats itself (see `GenerateOptions`); False goes on to the longest answer."""


class SmolEdgeEngine(BaseVlmEngine):
    """Docling's engine for pictures with a prompt, on a bundle."""

    def __init__(self, options: SmolEdgeVlmPipelineOptions) -> None:
        """Nothing is opened before the first page."""
        super().__init__(options=None, model_config=None)
        self._options = options
        self._model: SmolVLM | None = None

    def initialize(self) -> None:
        """Open the model; the first time a model is named, that downloads and exports it."""
        options = self._options
        name = options.model or options.vlm_options.model_spec.default_repo_id
        self._model = opened(name, options.quant, options.threads, options.parallel)
        self._initialized = True

    def predict_batch(self, input_batch: list[VlmEngineInput]) -> list[VlmEngineOutput]:
        """Read the pages; one that fails says why in its `metadata`, and the others are read."""
        if self._model is None:
            self.initialize()
        assert self._model is not None
        questions = [(each.image, each.prompt, self._wishes(each)) for each in input_batch]
        told = ask_all(self._model, questions, self._options.parallel)
        return [
            VlmEngineOutput(
                text=each.text,
                stop_reason=each.stop_reason.value,
                metadata={"num_tokens": each.tokens, "generation_time": each.seconds, "error": each.error},
            )
            for each in told
        ]

    def _wishes(self, asked: VlmEngineInput) -> dict[str, Any]:
        return {
            "max_tokens": asked.max_new_tokens,
            "temperature": asked.temperature,
            "stop": asked.stop_strings,
            "stop_loops": self._options.stop_loops,
        }


class SmolEdgeVlmPipeline(VlmPipeline):
    """Docling's pipeline for pages that are read whole."""

    def _initialize_new_runtime_system(self, pipeline_options: SmolEdgeVlmPipelineOptions) -> None:
        options = pipeline_options.vlm_options
        doctags = options.model_spec.response_format.value == "doctags"
        self.force_backend_text = pipeline_options.force_backend_text and doctags
        self.keep_images = pipeline_options.generate_page_images
        self.build_pipe = [stage_of(options, SmolEdgeEngine(pipeline_options))]
