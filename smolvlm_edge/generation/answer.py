"""An answer: what may be wished of it, and what comes back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, Self, TypedDict, get_args

from smolvlm_edge.constraints import Constraint, OnLimit, read_constraint
from smolvlm_edge.generation.logprobs import Logprobs
from smolvlm_edge.generation.sampling import Sampling
from smolvlm_edge.generation.stopping import Event, Stop
from smolvlm_edge.generation.timings import Timings
from smolvlm_edge.pictures.images import MAX_EDGE, Detail
from smolvlm_edge.pictures.video import Timeline
from smolvlm_edge.values import check, check_choice, is_text_or_texts, is_whole, plain

FinishReason = Literal["stop", "length"]

DEFAULT_MAX_TOKENS = 512
MOST_LOGPROBS = 20
"""As OpenAI's interface has it."""
FLAGS = ("stop_loops", "skip_special_tokens", "allow_paths")
CALLBACKS = ("on_tile", "on_prefill")


class GenerateOptions(TypedDict, total=False):
    """Keywords of everything that answers: `SmolVLM.generate`, `stream` and `astream`, and those of a `Chat`.

    Where one is left out, the model's generation_config.json decides; where that says nothing, the default here.
    """

    max_tokens: int
    """Longest answer; 512 unless said otherwise, and never more than the context holds."""
    temperature: float
    """0, the default, always takes the likeliest token."""
    top_k: int
    """Of these and the following, `Sampling` says more. transformers samples with top_k 50 unless it is told otherwise;
    here all tokens are kept."""
    top_p: float
    min_p: float
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    sequence_bias: Sequence[tuple[Sequence[int], float]]
    no_repeat_ngram_size: int
    bad_words_ids: Sequence[Sequence[int]]
    suppress_tokens: Sequence[int]
    begin_suppress_tokens: Sequence[int]
    min_tokens: int | None
    min_length: int
    exponential_decay_length_penalty: tuple[int, float] | None
    seed: int | None
    top_logprobs: int | None
    """Tell how likely the model found every token, and so many (0 to 20) of the likeliest ones; None, the
    default, tells nothing. See `Chunk.logprobs`."""
    stop: str | Sequence[str]
    """One text or several that end the answer; they are not part of it."""
    stop_loops: bool
    """End an answer that says the same over and over (see `generation.loops`) as if it had reached `max_tokens`. Off
    unless asked for: transformers goes on."""
    skip_special_tokens: bool
    """Leave tokens that are no text out of the answer, as is the default; what ends an answer is never part of it."""
    schema: Any
    """A JSON Schema that the answer is to fulfil: a dict, its JSON text, or a Pydantic model. The model is not told of
    it: say in the prompt what is wanted."""
    regex: str | None
    """A regular expression, in the syntax of Rust's regex crate, that the whole answer is to match."""
    choices: Sequence[str] | None
    """Texts of which the answer is to be one. Of these three, one at most; they need the extra [json]."""
    on_limit: OnLimit
    """What becomes of an answer of such a form if `max_tokens` is too few for it: an IncompleteError (`error`), or it
    is brought to the shortest valid ending in time (`complete`)."""
    detail: Detail
    """Tiles to spend on a picture: `low` makes it one, `auto` does not enlarge it, `high`, the default, keeps to the
    checkpoint's rules. A video's frames are one tile each. A picture's own `detail` in a message comes before it."""
    allow_paths: bool
    """Whether pictures may be named by paths and file: URLs; False for messages of strangers, who should not read
    files, nor learn which there are. True unless said otherwise."""
    longest_edge: int | None
    """Pixels to bring a picture's longer side to before it is cut; None leaves it to the checkpoint."""
    on_tile: Callable[[int, int], None]
    """Called with the tiles encoded so far and how many there are to encode: those whose features are not kept. Where
    several are answered at once, whichever of the callers' threads computes calls this."""
    on_prefill: Callable[[int, int], None]
    """Called with the tokens of the prompt that the decoder has read so far, and all of them."""
    cancel: Event | None
    """A `threading.Event` that ends the answer with a StoppedError, within one tile, chunk of the prompt or token."""
    timeout: float | None
    """Seconds from the call, waiting for other callers included, after which the same happens."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. The texts of all chunks, joined, are the answer."""

    text: str
    """May be empty: a token need not complete a character. The space that the family's answers begin with is
    left out, but for a base model, which completes the prompt."""
    token_id: int
    finish_reason: FinishReason | None
    """`stop` at an end token or stop string, or where nothing can follow in the form that was asked for; `length` at
    the longest answer, in a loop that was ended, or if the answer was completed because of it; None before the last
    chunk."""
    timings: Timings
    videos: tuple[Timeline, ...] = ()
    """When the frames of each video were."""
    logprobs: Logprobs | None = None
    """How likely the model itself found this token and the likeliest ones, whatever temperature, penalty or constraint
    made of that; None without `top_logprobs`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings
    videos: tuple[Timeline, ...] = ()
    """When the frames of each video were."""
    logprobs: tuple[Logprobs, ...] = ()
    """One for each token; empty without `top_logprobs`."""

    @classmethod
    def of(cls, stream: Iterable[Chunk]) -> Self:
        """The join of a stream."""
        chunks = list(stream)
        last = chunks[-1]
        assert last.finish_reason is not None
        return cls(
            text="".join(chunk.text for chunk in chunks),
            token_ids=tuple(chunk.token_id for chunk in chunks),
            finish_reason=last.finish_reason,
            timings=last.timings,
            videos=last.videos,
            logprobs=tuple(chunk.logprobs for chunk in chunks if chunk.logprobs),
        )

    def __str__(self) -> str:
        return self.text


def check_options(
    options: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Sampling, int, Constraint | None]:
    """The sampling, the longest answer and the form of it that were asked for.

    Args:
        options: See `GenerateOptions`.
        defaults: Those of the model, where `options` say nothing.

    Raises:
        RequestError: An option makes no sense.
        TypeError: There is no such option.
    """
    unknown = options.keys() - GenerateOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}; see GenerateOptions")
    wished = with_defaults(options, defaults)
    max_tokens, longest_edge = wished.get("max_tokens", DEFAULT_MAX_TOKENS), wished.get("longest_edge")
    logprobs = wished.get("top_logprobs")
    check(
        {
            "max_tokens must be a whole number, 1 or more": is_whole(max_tokens, 1, None),
            f"top_logprobs must be a whole number from 0 to {MOST_LOGPROBS}, or None": logprobs is None
            or is_whole(logprobs, 0, MOST_LOGPROBS),
            f"longest_edge must be a whole number from 1 to {MAX_EDGE}, or None": longest_edge is None
            or is_whole(longest_edge, 1, MAX_EDGE),
            "stop must be a text or a list of texts": is_text_or_texts(wished.get("stop", ())),
        }
        | {f"{name} must be True or False": isinstance(wished.get(name, False), bool) for name in FLAGS}
        | {f"{name} must be a function, or left out": callable(wished.get(name, print)) for name in CALLBACKS}
    )
    check_choice("detail", wished.get("detail", "high"), get_args(Detail))
    Stop(wished.get("cancel"), wished.get("timeout"))  # refuses what is none
    known = {field.name for field in fields(Sampling)}
    values: dict[str, Any] = {name: value for name, value in wished.items() if name in known}
    return Sampling(**values), max_tokens, read_constraint(wished)


def with_defaults(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> GenerateOptions:
    """The options, those of the model where they say nothing; numbers as Python has them."""
    said = {name: plain(value) for name, value in options.items()}
    return GenerateOptions(**{**defaults, **said})  # type: ignore[typeddict-item]
