"""SmolVLM: the object that a user holds. How an answer comes about is `SmolVLM.respond`."""

import os
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Self, Unpack, get_args

from smolvlm_edge.batch import Prepared, answer_many
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.bundle.config import ImageConfig, VideoConfig
from smolvlm_edge.chat import Chat
from smolvlm_edge.constraints import Constraint, Guide, Vocabulary
from smolvlm_edge.conversation.messages import Conversation, RawMessage, Shown, Source
from smolvlm_edge.conversation.model_input import ModelInput, PromptSize
from smolvlm_edge.conversation.prompt import PromptEncoder, too_long
from smolvlm_edge.conversation.request import Request, read_request
from smolvlm_edge.errors import EngineError, RequestError, SmolEdgeError
from smolvlm_edge.generation.answer import Answer, Chunk, GenerateOptions, check_options
from smolvlm_edge.generation.decoding import decode
from smolvlm_edge.generation.network import Memory, Network, encode, missing_tiles
from smolvlm_edge.generation.queueing import Busy, Queue
from smolvlm_edge.generation.reply import Reply
from smolvlm_edge.generation.sampling import Sampler
from smolvlm_edge.generation.stopping import Stop
from smolvlm_edge.generation.timings import Clock
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.choice import Choice, choose_engines, wanted_targets
from smolvlm_edge.graphs.engines import AUTO, Engines, open_engines
from smolvlm_edge.pictures.images import cut, open_image
from smolvlm_edge.pictures.video import Picture, Video, read_clip
from smolvlm_edge.store.bundles import DEFAULT_QUANT, locate

MAX_THREADS = 1024


class SmolVLM:
    """A vision-language model, loaded from an exported bundle.

    It may be used from many threads: one question is answered at a time, and the others wait in the order in which
    they came. An answer holds the model until it was read to its end or its stream was closed. A process that is
    forked cannot use its parent's model; one that is spawned loads its own.
    """

    def __init__(self, bundle: Bundle, engines: Engines, memory: Memory = "balanced", busy: Busy = "wait") -> None:
        """Use `SmolVLM.load`."""
        self.bundle = bundle
        self.prompt_encoder = PromptEncoder(bundle.folder, bundle.model)
        self.image_config = ImageConfig.from_folder(bundle.folder)
        self._network = Network(bundle, engines, memory)
        self._queue = Queue(busy)
        self.choice: Choice | None = None
        """The engines that `load` took, and why."""
        self._load_ms = 0.0
        self._process = os.getpid()

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        quant: str = DEFAULT_QUANT,
        offline: bool = False,
        engine: str = AUTO,
        threads: int | None = None,
        memory: Memory = "balanced",
        busy: Busy = "wait",
    ) -> Self:
        """Open a model.

        Args:
            model: A bundle made by `smol-edge export`; `demo`, the demonstration model that comes with the package;
                or a model's name (`smolvlm-256m`, `owner/name@revision`), whose bundle is looked for in the user's
                cache and made there if need be: that downloads the checkpoint and needs the [export] extra. By
                default what the environment variable SMOL_EDGE_MODEL says, else `demo`.
            quant: Number format of a bundle that is looked for by name: `int4`, `int8` or `fp32`.
            offline: Open no connection.
            engine: `auto`, which goes by the bundle and the machine; `onnxruntime`; `openvino`, which needs the
                [openvino] extra and a bundle with graphs for it; or one for each half, as in
                `vision=openvino,decoder=onnxruntime`. `graphs.choice` says more, and `choice` what it came to.
            threads: Threads of the engine; by default as many as the processors this process may use.
            memory: `balanced` keeps every graph open once it was used. `low` closes the vision encoder before
                the decoder opens, and the other way round, and keeps the features of no picture but the last
                prompt's: less memory, for the time to open and to encode again.
            busy: What a question meets while another one is answered: `wait` lets it wait for its turn, `raise`
                refuses it with a RequestError.

        Raises:
            ModelNotFoundError: No bundle in that folder, no model of that name, or not here and `offline`.
            DownloadError: The checkpoint cannot be fetched.
            IntegrityError: The bundle or the checkpoint is damaged, or the bundle is of a newer format.
            EngineError: The engine is not installed, or refuses a graph.
            RequestError: An argument makes no sense, or the bundle has no graphs for that engine.
        """
        _check_choice("memory", memory, get_args(Memory))
        _check_choice("busy", busy, get_args(Busy))
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise RequestError(f"threads must be from 1 to {MAX_THREADS}")
        wanted = wanted_targets(engine)
        start = time.perf_counter()
        bundle = Bundle.open(locate(model, quant, wanted, offline=offline))
        choice = choose_engines(bundle, engine, threads)
        engines = open_engines(choice.vision.engine, choice.decoder.engine, threads or available_cores())
        bundle.verify(choice.targets)
        vlm = cls(bundle, engines, memory, busy)
        vlm.choice = choice
        if memory == "balanced":
            vlm._network.open_text()
        vlm._load_ms = (time.perf_counter() - start) * 1000
        return vlm

    def generate(
        self,
        images: Source | Sequence[Source] = (),
        prompt: str = "",
        *,
        messages: Sequence[RawMessage] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """The answer to a prompt about any number of pictures and videos; takes what `stream` takes."""
        return Answer.of(self.stream(images, prompt, messages=messages, **options))

    def stream(
        self,
        images: Source | Sequence[Source] = (),
        prompt: str = "",
        *,
        messages: Sequence[RawMessage] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generator[Chunk, None, None]:
        """Answer a prompt about any number of pictures and videos, token by token.

        Closing the iterator ends the answer, as `cancel` and `timeout` do, and the model is free for the next question.

        Args:
            images: One picture or video, several, or an empty list. A path or the bytes of a file are taken for what
                the file holds; `Video` says what to take of a video.
            prompt: What to do with them.
            messages: Instead of both, a conversation that ends with the user's turn, or with the assistant's, from
                which the answer goes on: messages with `role` and `content` as OpenAI and transformers have them,
                `[{"role": "user", "content": [{"type": "image", "image": "photo.jpg"}, {"type": "text", "text":
                "describe"}]}]`; see `conversation.messages.read_messages`.
            **options: See `GenerateOptions`.

        Returns:
            An iterator over chunks, one per token.

        Raises:
            RequestError: The prompt is empty or longer than the context, or an option makes no sense.
            ImageError: A picture or video cannot be read.
            StoppedError: The answer was cancelled, or took longer than `timeout`.
            IncompleteError: The answer was cut off before it had the form that was asked for.
        """
        return self._start(images, prompt, messages, options, Stop(options.get("cancel"), options.get("timeout")))

    def astream(
        self,
        images: Source | Sequence[Source] = (),
        prompt: str = "",
        *,
        messages: Sequence[RawMessage] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGenerator[Chunk, None]:
        """`stream` for `async for`: a thread of its own computes the answer, and the event loop goes on meanwhile.

        Cancelling the task that reads, or closing the iterator, ends the answer within one tile, chunk of the prompt or
        token; the model is free when that is done. Callbacks are called in the thread.
        """
        from smolvlm_edge.generation.background import stream_in_thread  # noqa: PLC0415 - asyncio, for who uses it

        stop = Stop(options.get("cancel"), options.get("timeout"))
        return stream_in_thread(lambda: self._start(images, prompt, messages, options, stop), stop)

    def generate_many(
        self, requests: Iterable[Request], **options: Unpack[GenerateOptions]
    ) -> Generator[Answer | SmolEdgeError, None, None]:
        """The answers to many requests, in their order; what goes wrong with one of them does not end the others.

        While one is answered, the next one is taken from `requests` and its pictures are read.

        Args:
            requests: Keywords of `generate`, as in `{"images": "photo.jpg", "prompt": "Describe this image."}`.
            **options: For every request, unless it has its own; see `GenerateOptions`. `timeout` is for each of them,
                `cancel` ends them all.

        Yields:
            The answer; or in its place the error that `generate` would have raised.

        Raises:
            RequestError: An option makes no sense.
            StoppedError: `cancel` was set.
        """
        check_options(options)
        return answer_many(requests, options, self._prepare, self.respond)

    def measure(
        self,
        images: Source | Sequence[Source] = (),
        prompt: str = "",
        *,
        messages: Sequence[RawMessage] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> PromptSize:
        """How many tokens a prompt with its pictures takes; computes nothing, and raises what `stream` raises."""
        conversation, pictures, _ = self._prepare(images, prompt, messages, **options)
        read = ModelInput.of(conversation, pictures, self.prompt_encoder, self.bundle.model)
        return PromptSize(
            tokens=len(read.input_ids),
            image_tokens=int(read.is_image.sum()),
            context=self.bundle.model.text.max_position_embeddings,
            grids=tuple((picture.rows, picture.columns) for picture in read.pictures),
        )

    def chat(self, system: str | None = None, **options: Unpack[GenerateOptions]) -> Chat:
        """A conversation of several turns.

        Args:
            system: What the model is told before the first one.
            **options: For every turn, unless it has its own; see `GenerateOptions`.
        """
        check_options(options)
        return Chat(self.respond, system, options)

    def respond(
        self, conversation: Conversation, pictures: list[Picture], options: GenerateOptions, stop: Stop
    ) -> Generator[Chunk, None, None]:
        """How an answer comes about; for `Chat`, and what `stream` does.

        Args:
            conversation: Ends with the user's turn, or with the beginning of the answer.
            pictures: The first of its pictures and videos, as far as they were read already; the others are added.
            options: See `GenerateOptions`.
            stop: When to end early.
        """
        if os.getpid() != self._process:
            raise EngineError(
                "this process was forked from the one that loaded the model, and an engine's threads do not survive "
                "that: load the model in here, or start processes with the method 'spawn'"
            )
        clock = Clock(self._load_ms)
        model = self.bundle.model
        sampling, max_tokens, constraint = check_options(options, model.generation.options())
        sampling.check_vocabulary(model.text.vocab_size)
        with self._queue.turn(stop):
            with clock.measure("preprocess_ms"):
                for source in conversation.sources[len(pictures) :]:
                    pictures.append(self._read(source, options))
                    stop.check()
                prompt = ModelInput.of(conversation, pictures, self.prompt_encoder, self.bundle.model)
                max_tokens = min(max_tokens, self._room(len(prompt.input_ids)))
            sampler = Sampler(sampling, prompt.input_ids, model.eos_token_ids)
            prefix = prompt.answer_prefix
            guide = self._guide(constraint, prefix, sampler, max_tokens, options, clock) if constraint else None

            network = self._network
            features = network.recall(prompt.pictures)
            if missing := missing_tiles(prompt.pictures, features):
                with clock.measure("load_ms"):
                    vision_encoder, connector = network.open_vision()
                with clock.measure("vision_ms"):
                    encode(vision_encoder, connector, missing, features, stop.after(options.get("on_tile")))

            with clock.measure("load_ms"):
                embed_tokens, cache = network.open_text()
            with clock.measure("prefill_ms"):
                kept = cache.keep(prompt.keys)
                inputs_embeds = prompt.embed(kept, embed_tokens, features)
                logits = cache.fill(prompt.keys, inputs_embeds, stop.after(options.get("on_prefill")))

            eos_token_ids, texts = self.bundle.model.eos_token_ids, options.get("stop", ())
            encoder, choose, top = self.prompt_encoder, guide or sampler, options.get("top_logprobs")
            reply = Reply(
                encoder.tokenizer,
                encoder.hidden_token_ids,
                prompt.answer_prefix,
                eos_token_ids,
                max_tokens,
                texts,
                constraint,
                guide,
            )
            for step in decode(cache.decoder, embed_tokens, logits, choose, eos_token_ids, max_tokens, top):
                text = reply.push(step.token_id)
                timings = clock.timings(
                    tiles=sum(map(len, prompt.pictures)),
                    encoded_tiles=len(missing),
                    prompt_tokens=len(prompt.input_ids),
                    cached_tokens=kept,
                    generated_tokens=reply.tokens,
                    finished=reply.finish_reason is not None,
                )
                yield Chunk(text, step.token_id, reply.finish_reason, timings, prompt.videos, step.logprobs)
                if reply.finish_reason:
                    return
                stop.check()

    def close(self) -> None:
        """Free all graphs. An answer under way ends with an EngineError; the next question opens them again."""
        if os.getpid() == self._process:  # a forked process would wait for threads that it does not have
            self._network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _start(
        self,
        images: Source | Sequence[Source],
        prompt: str,
        messages: Sequence[RawMessage] | None,
        options: GenerateOptions,
        stop: Stop,
    ) -> Generator[Chunk, None, None]:
        """The stream; what is wrong with the request is said before it begins."""
        return self.respond(read_request(images, prompt, messages, options), [], options, stop)

    def _prepare(
        self,
        images: Source | Sequence[Source] = (),
        prompt: str = "",
        messages: Sequence[RawMessage] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Prepared:
        """A request of `generate_many`, with its pictures read."""
        conversation = read_request(images, prompt, messages, options)
        return conversation, [self._read(source, options) for source in conversation.sources], options

    def _read(self, shown: Shown, options: GenerateOptions) -> Picture:
        if isinstance(shown.source, Video):
            return read_clip(shown.source, VideoConfig.from_folder(self.bundle.folder))
        detail, longest_edge = shown.detail or options.get("detail", "high"), options.get("longest_edge")
        return cut(open_image(shown.source), self.image_config, detail=detail, longest_edge=longest_edge)

    def _guide(
        self,
        constraint: Constraint,
        prefix: str,
        sampler: Sampler,
        max_tokens: int,
        options: GenerateOptions,
        clock: Clock,
    ) -> Guide:
        with clock.measure("load_ms"):
            vocabulary = self._vocabulary
        on_limit, measure = options.get("on_limit", "error"), partial(clock.measure, "constraint_ms")
        return Guide(constraint, prefix, vocabulary, sampler, max_tokens, on_limit, measure)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        encoder, config = self.prompt_encoder, self.bundle.model
        return Vocabulary(encoder.tokenizer, config.text.vocab_size, config.eos_token_ids, encoder.hidden_token_ids)

    def _room(self, prompt_tokens: int) -> int:
        """Tokens that the context has left for the answer."""
        context = self.bundle.model.text.max_position_embeddings
        if prompt_tokens >= context:
            raise too_long(f"{prompt_tokens:,} tokens", context)
        return context - prompt_tokens


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise RequestError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
