"""SmolVLM: the object that a user holds. How an answer comes about is `SmolVLM.stream`."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self, TypedDict, Unpack, get_args

import numpy as np
import numpy.typing as npt

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.config import ImageConfig, VideoConfig
from smolvlm_edge.decoding import decode, prefill
from smolvlm_edge.detokenizer import Detokenizer
from smolvlm_edge.errors import IntegrityError, RequestError
from smolvlm_edge.graphs import Decoder, Engine, Floats, Graph, available_cores
from smolvlm_edge.graphs.engines import EngineName, choose_engine, open_engine, target_of
from smolvlm_edge.images import MAX_EDGE, ImageSource, Tiles, check_image, cut, open_image
from smolvlm_edge.prompt import ContentPart, Message, PromptEncoder
from smolvlm_edge.sampling import Sampler, Sampling
from smolvlm_edge.store.bundles import DEFAULT_QUANT, locate
from smolvlm_edge.timings import Clock, Timings
from smolvlm_edge.video import Clip, Timeline, Video, as_video, read_clip

FinishReason = Literal["stop", "length"]
Source = ImageSource | Video
Memory = Literal["balanced", "low"]

DEFAULT_MAX_TOKENS = 512
MAX_THREADS = 1024


class GenerateOptions(TypedDict, total=False):
    """Keywords of `SmolVLM.generate` and `SmolVLM.stream`."""

    max_tokens: int
    """Longest answer; 512 unless said otherwise, and never more than the context holds."""
    temperature: float
    """0, the default, always takes the likeliest token."""
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: str | Sequence[str]
    """One text or several that end the answer; they are not part of it."""
    split: bool | None
    """Whether to cut pictures into tiles; None leaves it to the checkpoint. A video's frames are never cut."""
    longest_edge: int | None
    """Pixels to bring a picture's longer side to before it is cut; None leaves it to the checkpoint."""
    on_tile: Callable[[int, int], None]
    """Called with the tiles encoded so far and their total."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. The texts of all chunks, joined, are the answer."""

    text: str
    """May be empty: a token need not complete a character. The space that the family's answers begin with is
    left out, but for a base model, which completes the prompt."""
    token_id: int
    finish_reason: FinishReason | None
    """`stop` at an end token or stop string, `length` at the longest answer; None before the last chunk."""
    timings: Timings
    videos: tuple[Timeline, ...] = ()
    """When the frames of each video were."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings
    videos: tuple[Timeline, ...] = ()
    """When the frames of each video were."""

    def __str__(self) -> str:
        return self.text


class SmolVLM:
    """A vision-language model, loaded from an exported bundle.

    One answer at a time: an object whose stream is still open refuses a second one.
    """

    def __init__(self, bundle: Bundle, engine: Engine, memory: Memory = "balanced") -> None:
        """Use `SmolVLM.load`."""
        self.bundle = bundle
        self.prompt_encoder = PromptEncoder(bundle.folder, bundle.model)
        self.image_config = ImageConfig.from_folder(bundle.folder)
        self._graphs = _Graphs(bundle, engine, memory)
        self._load_ms = 0.0
        self._busy = Lock()

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        quant: str = DEFAULT_QUANT,
        offline: bool = False,
        engine: EngineName | None = None,
        threads: int | None = None,
        memory: Memory = "balanced",
    ) -> Self:
        """Open a model.

        Args:
            model: A bundle made by `smol-edge export`; `demo`, the demonstration model that comes with the package;
                or a model's name (`smolvlm-256m`, `owner/name@revision`), whose bundle is looked for in the user's
                cache and made there if need be: that downloads the checkpoint and needs the [export] extra. By
                default what the environment variable SMOL_EDGE_MODEL says, else `demo`.
            quant: Number format of a bundle that is looked for by name: `int4`, `int8` or `fp32`.
            offline: Open no connection.
            engine: `onnxruntime` or `openvino`, which needs the [openvino] extra and a bundle with graphs for it; by
                default what the bundle has graphs for, `onnxruntime` first.
            threads: Threads of the engine; by default as many as the processors this process may use.
            memory: `balanced` keeps every graph open once it was used. `low` closes the vision encoder before
                the decoder opens, and the other way round: less memory, for the time to open them again.

        Raises:
            ModelNotFoundError: No bundle in that folder, no model of that name, or not here and `offline`.
            DownloadError: The checkpoint cannot be fetched.
            IntegrityError: The bundle or the checkpoint is damaged, or the bundle is of a newer format.
            EngineError: The engine is not installed, or refuses a graph.
            RequestError: An argument makes no sense, or the bundle has no graphs for that engine.
        """
        if memory not in get_args(Memory):
            raise RequestError(f"memory must be one of {', '.join(get_args(Memory))}, not {memory!r}")
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise RequestError(f"threads must be from 1 to {MAX_THREADS}")
        target = target_of(engine)
        start = time.perf_counter()
        bundle = Bundle.open(locate(model, quant, target, offline=offline))
        runner = open_engine(choose_engine(bundle, engine), threads or available_cores())
        bundle.verify(runner.target)
        vlm = cls(bundle, runner, memory)
        if memory == "balanced":
            vlm._graphs.open_text()
        vlm._load_ms = (time.perf_counter() - start) * 1000
        return vlm

    def generate(self, images: Source | Sequence[Source], prompt: str, **options: Unpack[GenerateOptions]) -> Answer:
        """The answer to a prompt about any number of pictures and videos; takes what `stream` takes."""
        chunks = list(self.stream(images, prompt, **options))
        last = chunks[-1]
        assert last.finish_reason is not None
        return Answer(
            text="".join(chunk.text for chunk in chunks),
            token_ids=tuple(chunk.token_id for chunk in chunks),
            finish_reason=last.finish_reason,
            timings=last.timings,
            videos=last.videos,
        )

    def stream(
        self, images: Source | Sequence[Source], prompt: str, **options: Unpack[GenerateOptions]
    ) -> Iterator[Chunk]:
        """Answer a prompt about any number of pictures and videos, token by token.

        Args:
            images: One picture or video, several, or an empty list. A path or the bytes of a file are taken for what
                the file holds; `Video` says what to take of a video.
            prompt: What to do with them.
            **options: See `GenerateOptions`.

        Yields:
            A chunk per token.

        Raises:
            RequestError: The prompt is empty or longer than the context, or an option makes no sense.
            ImageError: A picture or video cannot be read.
        """
        with self._exclusive():
            clock = Clock(self._load_ms)
            sampling, max_tokens = _checked(prompt, options)
            with clock.measure("preprocess_ms"):
                seen = self._read(images, options)
                tiles = [each for item in seen for each in (item.frames if isinstance(item, Clip) else (item,))]
                videos = tuple(item.timeline for item in seen if isinstance(item, Clip))
                input_ids = self._input_ids(seen, videos, prompt)
                max_tokens = min(max_tokens, self._room(len(input_ids)))

            features: list[Floats] = []
            if tiles:
                with clock.measure("load_ms"):
                    vision_encoder, connector = self._graphs.open_vision()
                with clock.measure("vision_ms"):
                    features = _encode(vision_encoder, connector, tiles, options.get("on_tile"))

            with clock.measure("load_ms"):
                embed_tokens, decoder = self._graphs.open_text()
            with clock.measure("prefill_ms"):
                inputs_embeds = self._merge(input_ids, embed_tokens(input_ids[None])[0], features)
                decoder.truncate(0)
                logits = prefill(decoder, inputs_embeds)

            choose = Sampler(sampling, input_ids)
            eos_token_ids = self.bundle.model.eos_token_ids
            stop = options.get("stop", ())
            encoder = self.prompt_encoder
            stop = [stop] if isinstance(stop, str) else stop
            detokenizer = Detokenizer(encoder.tokenizer, stop, encoder.hidden_token_ids)
            tokens = decode(decoder, embed_tokens, logits, choose, eos_token_ids, max_tokens)
            begun = encoder.is_base  # what a completion begins with, a space too, belongs to it
            for count, token in enumerate(tokens, start=1):
                text = detokenizer.push(token)
                if token in eos_token_ids or count == max_tokens:
                    text += detokenizer.flush()
                text = text if begun else text.lstrip()
                begun = begun or bool(text)
                finish_reason = _finish_reason(token in eos_token_ids or detokenizer.stopped, count == max_tokens)
                timings = clock.timings(
                    tiles=sum(map(len, tiles)), prompt_tokens=len(input_ids), generated_tokens=count
                )
                yield Chunk(text, token, finish_reason, timings, videos)
                if finish_reason:
                    return

    def close(self) -> None:
        """Free all graphs. An answer under way ends with an EngineError; the next question opens them again."""
        self._graphs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One answer at a time: two would write into the same cache."""
        if not self._busy.acquire(blocking=False):
            raise RequestError("the model is still answering: read that answer to its end, or close its stream")
        try:
            yield
        finally:
            self._busy.release()

    def _read(self, images: Source | Sequence[Source], options: GenerateOptions) -> list[Tiles | Clip]:
        sources: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        split, longest_edge = options.get("split"), options.get("longest_edge")
        seen: list[Tiles | Clip] = []
        for source in sources:
            if video := as_video(source):
                seen.append(read_clip(video, VideoConfig.from_folder(self.bundle.folder)))
            else:
                seen.append(cut(open_image(source), self.image_config, split=split, longest_edge=longest_edge))
        return seen

    def _input_ids(
        self, seen: Sequence[Tiles | Clip], videos: Sequence[Timeline], prompt: str
    ) -> npt.NDArray[np.int64]:
        places: list[ContentPart] = [{"type": "video" if isinstance(item, Clip) else "image"} for item in seen]
        question: Message = {"role": "user", "content": [*places, {"type": "text", "text": prompt}]}
        grids = [(item.rows, item.columns) for item in seen if isinstance(item, Tiles)]
        return self.prompt_encoder.encode([question], grids, videos)

    def _room(self, prompt_tokens: int) -> int:
        """Tokens that the context has left for the answer."""
        context = self.bundle.model.text.max_position_embeddings
        if prompt_tokens >= context:
            raise RequestError(
                f"the prompt takes {prompt_tokens} tokens and the model's context holds {context}: "
                "use fewer pictures or --frames, a smaller --longest-edge, --no-split, or a shorter text"
            )
        return context - prompt_tokens

    def _merge(self, input_ids: npt.NDArray[np.int64], inputs_embeds: Floats, features: Sequence[Floats]) -> Floats:
        """Put the image features [image_seq_len, hidden] in the places of the image tokens."""
        places = input_ids == self.bundle.model.image_token_id
        if places.sum() != sum(map(len, features)):
            raise IntegrityError(
                "the tokenizer does not keep image tokens apart: tokenizer.json does not fit this model"
            )
        if features:
            inputs_embeds[places] = np.concatenate(features)
        return inputs_embeds


def check_request(images: Sequence[Source], prompt: str, options: GenerateOptions) -> None:
    """Refuse what every model would refuse; for who is about to fetch one.

    Raises:
        RequestError: The prompt is empty, or an option makes no sense.
        ImageError: A picture or video is missing, or a picture is none.
    """
    _checked(prompt, options)
    for image in images:
        if not isinstance(image, Video) and as_video(image) is None:
            check_image(image)


class _Graphs:
    """Opens graphs when they are first needed; with little memory, one half of the model at a time."""

    def __init__(self, bundle: Bundle, engine: Engine, memory: Memory) -> None:
        self._bundle, self._engine, self._memory = bundle, engine, memory
        self._vision: tuple[Graph, Graph] | None = None
        self._text: tuple[Graph, Decoder] | None = None

    def open_vision(self) -> tuple[Graph, Graph]:
        """Vision encoder and connector."""
        if self._memory == "low":
            self._close_text()
        if self._vision is None:
            graph = self._engine.graph
            self._vision = graph(self._path("vision_encoder")), graph(self._path("connector"))
        return self._vision

    def open_text(self) -> tuple[Graph, Decoder]:
        """Token table and decoder."""
        if self._memory == "low":
            self._close_vision()
        if self._text is None:
            engine = self._engine
            self._text = engine.graph(self._path("embed_tokens")), engine.decoder(self._path("decoder"))
        return self._text

    def close(self) -> None:
        """Close everything."""
        self._close_vision()
        self._close_text()

    def _path(self, name: str) -> Path:
        return self._bundle.graph_path(name, self._engine.target)

    def _close_vision(self) -> None:
        if self._vision is not None:
            for graph in self._vision:
                graph.close()
            self._vision = None

    def _close_text(self) -> None:
        if self._text is not None:
            for graph in self._text:
                graph.close()
            self._text = None


def _checked(prompt: str, options: GenerateOptions) -> tuple[Sampling, int]:
    """The sampling and the longest answer that were asked for, or a RequestError."""
    if not prompt.strip():
        raise RequestError("the prompt is empty: say what to do, for example 'describe'")
    unknown = options.keys() - GenerateOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}; see GenerateOptions")
    max_tokens, longest_edge = options.get("max_tokens", DEFAULT_MAX_TOKENS), options.get("longest_edge")
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise RequestError("max_tokens must be a whole number, 1 or more")
    if longest_edge is not None and not 1 <= longest_edge <= MAX_EDGE:
        raise RequestError(f"longest_edge must be from 1 to {MAX_EDGE}")
    known = {field.name for field in fields(Sampling)}
    values: dict[str, Any] = {name: value for name, value in options.items() if name in known}
    return Sampling(**values), max_tokens


def _encode(
    vision_encoder: Graph,
    connector: Graph,
    tiles: Sequence[Tiles],
    on_tile: Callable[[int, int], None] | None,
) -> list[Floats]:
    """Image features [image_seq_len, hidden] of every tile, one tile at a time to bound memory."""
    features: list[Floats] = []
    total = sum(map(len, tiles))
    for picture in tiles:
        for pixel_values in picture.pixel_values():
            features.append(connector(vision_encoder(pixel_values))[0])
            if on_tile is not None:
                on_tile(len(features), total)
    return features


def _finish_reason(stopped: bool, longest: bool) -> FinishReason | None:
    if stopped:
        return "stop"
    return "length" if longest else None
