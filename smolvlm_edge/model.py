"""SmolVLM: the object that a user holds. How an answer comes about is `SmolVLM.respond`."""

import os
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import get_ident
from typing import Any, Literal, Self, Unpack, get_args, overload

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.chat import Chat, OnFull
from smolvlm_edge.conversation.messages import Conversation, RawMessage, Source
from smolvlm_edge.conversation.model_input import PromptSize
from smolvlm_edge.conversation.processor import Processor
from smolvlm_edge.conversation.request import Request, read_request
from smolvlm_edge.errors import EngineError
from smolvlm_edge.generation.answer import Answer, Chunk, GenerateOptions, check_options
from smolvlm_edge.generation.driving import Busy, Driver
from smolvlm_edge.generation.network import Memory, Network
from smolvlm_edge.generation.scheduler import Scheduler
from smolvlm_edge.generation.stopping import Stop
from smolvlm_edge.generation.strategy import Strategy, Tokens
from smolvlm_edge.generation.timings import Clock
from smolvlm_edge.generation.width import ONE, Parallel, Width, choose_width
from smolvlm_edge.graphs import CLOSED, available_cores
from smolvlm_edge.graphs.checks import check_graphs
from smolvlm_edge.graphs.choice import Choice, wanted_targets
from smolvlm_edge.graphs.engines import AUTO, EngineOptions, Engines, check_engine_options, open_engines
from smolvlm_edge.graphs.trial import choose_once
from smolvlm_edge.many import Many
from smolvlm_edge.pictures.video import Picture
from smolvlm_edge.response import Response
from smolvlm_edge.store.bundles import DEFAULT_QUANT, locate
from smolvlm_edge.values import check, check_choice, is_whole, plain

MAX_THREADS = 1024


class SmolVLM:
    """A vision-language model, loaded from an exported bundle.

    It may be used from many threads: one question is answered at a time, or as many as `load` is told, and the others
    wait in the order in which they came. An answer holds its place until it was read to its end or its stream was
    closed. A process that is forked cannot use its parent's model; one that is spawned loads its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        engines: Engines,
        memory: Memory = "balanced",
        busy: Busy = "wait",
        width: Width = ONE,
    ) -> None:
        """Use `SmolVLM.load`."""
        self.bundle = bundle
        self._processor = Processor(bundle)
        self.prompt_encoder, self.image_config = self._processor.encoder, self._processor.images
        self._tokens = Tokens(self.prompt_encoder.tokenizer, bundle.model, self.prompt_encoder.hidden_token_ids)
        self.width = width
        """How many questions are answered at once."""
        self._network = Network(bundle, engines, memory, width.count, width.budget)
        self._driver = Driver(Scheduler(width.count, width.budget), busy)
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
        parallel: Parallel = 1,
        cache_bytes: int | None = None,
        trust: bool = False,
        engine_options: EngineOptions | None = None,
        measure: bool = True,
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
            threads: Threads of the engine; by default one for each full core that this process may use.
            memory: `balanced` keeps every graph open once it was used. `low` closes the vision encoder before
                the decoder opens, and the other way round, and keeps the features of no picture but the last
                prompt's: less memory, for the time to open and to encode again.
            busy: What a question meets while another one is answered: `wait` lets it wait for its turn, `raise`
                refuses it with a RequestError.
            parallel: How many questions are answered at once; the others wait. `auto` goes by memory and processors
                (`smol-edge doctor` says what that comes to here). One at a time, the default, gives the same answers to
                the last bit whatever else is asked; several share the reading of weights, and their numbers differ in
                the last bits with the number of neighbours. OpenVINO's decoder takes one at a time.
            cache_bytes: How much memory the keys and values of questions that are answered at once may take; who does
                not fit waits, and who never will is refused. By default half of what is free, with several at once.
            trust: Open graphs that hold something that smol-edge's exporter does not write. Otherwise such a bundle
                is refused: a graph that was made to harm can end the process or take all memory.
            engine_options: Settings that are handed to an engine as they are, and come before those that smol-edge
                chooses: entries of onnxruntime's session configuration, properties of openvino's CPU plugin, as in
                `{"onnxruntime": {"session.intra_op.allow_spinning": "0"}, "openvino": {"KV_CACHE_PRECISION": "u8"}}`.
                What they do to answers and speed is not tested here.
            measure: Whether the first load of a model by name that two engines can run may try for some 3 seconds which
                one is faster, for `auto` to go by on this machine from then on (see `graphs.trial`). The environment
                variable SMOL_EDGE_MEASURE=0 forbids it, too. It is not done with `engine_options`.

        Raises:
            ModelNotFoundError: No bundle in that folder, no model of that name, or not here and `offline`.
            DownloadError: The checkpoint cannot be fetched.
            IntegrityError: The bundle or the checkpoint is damaged, or the bundle is of a newer format.
            EngineError: The engine is not installed, or refuses a graph.
            RequestError: An argument makes no sense, or the bundle has no graphs for that engine.
        """
        threads, parallel, cache_bytes = plain(threads), plain(parallel), plain(cache_bytes)
        check_choice("memory", memory, get_args(Memory))
        check_choice("busy", busy, get_args(Busy))
        check(
            {
                f"threads must be a whole number from 1 to {MAX_THREADS}, or None": threads is None
                or is_whole(threads, 1, MAX_THREADS),
                "model must be a name or a path": model is None or isinstance(model, str | os.PathLike),
                "quant must be a name": isinstance(quant, str),
                "engine must be a name": isinstance(engine, str),
            }
            | {
                f"{name} must be True or False": isinstance(plain(flag), bool)
                for name, flag in {"offline": offline, "trust": trust, "measure": measure}.items()
            }
        )
        check_engine_options(engine_options)
        wanted = wanted_targets(engine)
        start = time.perf_counter()
        bundle = Bundle.open(locate(model, quant, wanted, offline=offline))
        threads = threads or available_cores()
        choice = choose_once(bundle, engine, threads, measure=measure and not engine_options)
        engines = open_engines(choice.vision.engine, choice.decoder.engine, threads, engine_options)
        bundle.verify(choice.targets)
        if not trust:
            check_graphs(bundle, choice.targets)
        width = choose_width(bundle.model.text, choice.decoder.engine, memory, parallel, cache_bytes)
        vlm = cls(bundle, engines, memory, busy, width)
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

        Tokens that come faster than 30 a second arrive several at once, each as its own chunk. Cancelling the task that
        reads, or closing the iterator, ends the answer within one tile, chunk of the prompt or token; the model is free
        when that is done. Callbacks are called in the thread.
        """
        from smolvlm_edge.generation.background import stream_in_thread  # noqa: PLC0415 - asyncio, for who uses it

        stop = Stop(options.get("cancel"), options.get("timeout"))
        return stream_in_thread(lambda: self._start(images, prompt, messages, options, stop), stop)

    @overload
    def generate_many(
        self, requests: Iterable[Request], *, ordered: Literal[True] = True, **options: Unpack[GenerateOptions]
    ) -> Generator[Answer | Exception, None, None]: ...

    @overload
    def generate_many(
        self, requests: Iterable[Request], *, ordered: Literal[False], **options: Unpack[GenerateOptions]
    ) -> Generator[tuple[int, Answer | Exception], None, None]: ...

    def generate_many(
        self, requests: Iterable[Request], *, ordered: bool = True, **options: Unpack[GenerateOptions]
    ) -> Generator[Any, None, None]:
        """The answers to many requests; what goes wrong with one of them does not end the others.

        As many are answered at once as `load` was told with `parallel`. Meanwhile the next ones are taken from
        `requests` and their pictures are read.

        Args:
            requests: Keywords of `generate`, as in `{"images": "photo.jpg", "prompt": "Describe this image."}`.
            ordered: Answers come in the order of the requests; else as they are ready, each with the number of its
                request, counted from 0.
            **options: For every request, unless it has its own; see `GenerateOptions`. `timeout` is for each of them,
                `cancel` ends them all.

        Yields:
            The answer; or in its place what `generate` would have raised.

        Raises:
            RequestError: An option makes no sense.
            StoppedError: `cancel` was set.
        """
        check_options(options)
        check({"requests must be a list of requests, or something else to go through": isinstance(requests, Iterable)})
        many = Many(self._answer, self.width.count, options, ordered=ordered)
        return many.ordered(requests) if ordered else many.numbered(requests)

    def measure(
        self,
        images: Source | Sequence[Source] = (),
        prompt: str = "",
        *,
        messages: Sequence[RawMessage] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> PromptSize:
        """How many tokens a prompt with its pictures takes; computes nothing, and raises what `stream` raises."""
        conversation = read_request(images, prompt, messages, options)
        stop = Stop(options.get("cancel"), options.get("timeout"))
        return self._processor.measure(conversation, options, stop)

    def chat(self, system: str | None = None, *, on_full: OnFull = "stop", **options: Unpack[GenerateOptions]) -> Chat:
        """A conversation of several turns.

        Args:
            system: What the model is told before the first one.
            on_full: What a question meets once the conversation is longer than the model's context: `stop` refuses it
                with a ContextError, `drop` leaves the oldest turns out, but never the system's text.
            **options: For every turn, unless it has its own; see `GenerateOptions`.
        """
        check_options(options)
        check_choice("on_full", on_full, get_args(OnFull))
        check({"system must be a text, or None": system is None or isinstance(system, str)})
        return Chat(self.respond, system, options, on_full)

    def respond(
        self,
        conversation: Conversation,
        pictures: list[Picture],
        options: GenerateOptions,
        stop: Stop,
        asking: int | None = None,
    ) -> Generator[Chunk, None, None]:
        """How an answer comes about; for `Chat`, and what `stream` does.

        The caller waits for its turn, reads the pictures and puts the prompt into tokens. What is then computed, and in
        which order, is told by `Response`; when, among the answers of other callers, by `generation.scheduler`.

        Args:
            conversation: Ends with the user's turn, or with the beginning of the answer.
            pictures: The first of its pictures and videos, as far as they were read already; the others are added.
            options: See `GenerateOptions`.
            stop: When to end early.
            asking: The thread that waits for the answer, if another one does this for it.
        """
        if os.getpid() != self._process:
            raise EngineError(
                "this process was forked from the one that loaded the model, and an engine's threads do not survive "
                "that: load the model in here, or start processes with the method 'spawn'"
            )
        clock, thread = Clock(self._load_ms), asking or get_ident()
        strategy, processor = Strategy(self._tokens, options), self._processor
        with ExitStack() as turn:
            with clock.measure("queue_ms"):
                reads = len(pictures) < len(conversation.sources)
                caller = turn.enter_context(self._driver.turn(stop, thread, reads=reads))
            with clock.measure("preprocess_ms"):
                pictures = processor.read(conversation, pictures, options, stop)
                prompt = processor.encode(conversation, pictures)
            room = processor.room(len(prompt.input_ids))
            choose, reply = strategy.begin(prompt.input_ids, prompt.answer_prefix, room, clock)
            response = Response(self._network, prompt, reply, choose, options, stop, clock, caller)
            del conversation, pictures, prompt  # they hold the pictures, and the response lets go of them in time
            yield from self._driver.run(response, thread)

    def close(self) -> None:
        """Free all graphs. An answer under way ends with an EngineError; the next question opens them again."""
        if os.getpid() == self._process:  # a forked process would wait for threads that it does not have
            self._driver.scheduler.close(EngineError(CLOSED))
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

    def _answer(self, request: Request, stop: Stop, asking: int) -> Answer:
        """The answer to a request of `generate_many`."""
        images, prompt, messages = request.pop("images", ()), request.pop("prompt", ""), request.pop("messages", None)
        conversation = read_request(images, prompt, messages, request)
        ahead = self.width.count == 1  # with several, the next callers read theirs ahead in any case
        # the list of pictures is given away: nothing here keeps hold of it
        return Answer.of(
            self.respond(
                conversation,
                self._processor.read(conversation, [], request, stop) if ahead else [],
                request,
                stop,
                asking,
            )
        )
