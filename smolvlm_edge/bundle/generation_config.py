"""What generation_config.json wishes of answers, as far as smol-edge does it, and what it does not do.

The caller's options come before these. Values mean what they mean in transformers 5.23
(generation/configuration_utils.py).
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

from smolvlm_edge.bundle.reading import Section

TOP_K = 50  # of transformers, where sampling is wished for and no top_k
NOT_DONE: dict[str, object] = {
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "force_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1.0,
    "max_length": 20,
    "max_time": None,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "penalty_alpha": 0.0,
    "remove_invalid_values": False,
    "token_healing": False,
    "top_h": None,
    "watermarking_config": None,
}
"""What would change answers, and the value with which it does not."""


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """Defaults of an answer's options, by their names in `GenerateOptions`; None or empty where the file has none."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    no_repeat_ngram_size: int | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    min_tokens: int | None = None
    min_length: int | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    stop: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    """What the file wishes and smol-edge does not do, as `key=value`."""

    @classmethod
    def from_section(cls, config: Section) -> Self:
        """Read the file's values.

        Raises:
            IntegrityError: One is of another type or out of range.
        """
        samples = config.flag("do_sample")
        return cls(
            max_tokens=config.optional(config.integer, "max_new_tokens") or None,
            # without do_sample transformers takes the likeliest token, whatever temperature the file names
            temperature=config.number("temperature", 1.0) if samples else None,
            top_k=config.integer("top_k", TOP_K) if samples else config.optional(config.integer, "top_k"),
            top_p=config.optional(config.number, "top_p"),
            min_p=config.optional(config.number, "min_p"),
            typical_p=config.optional(config.number, "typical_p"),
            epsilon_cutoff=config.optional(config.number, "epsilon_cutoff"),
            eta_cutoff=config.optional(config.number, "eta_cutoff"),
            repetition_penalty=config.optional(config.number, "repetition_penalty"),
            sequence_bias=config.biases("sequence_bias"),
            no_repeat_ngram_size=config.optional(config.integer, "no_repeat_ngram_size"),
            bad_words_ids=config.runs("bad_words_ids"),
            suppress_tokens=config.integers("suppress_tokens"),
            begin_suppress_tokens=config.integers("begin_suppress_tokens"),
            min_tokens=config.optional(config.integer, "min_new_tokens"),
            min_length=config.optional(config.integer, "min_length"),
            exponential_decay_length_penalty=config.optional(config.decay, "exponential_decay_length_penalty"),
            stop=config.text_or_texts("stop_strings"),
            ignored=tuple(
                f"{key}={config.shown(key)}"
                for key, neutral in NOT_DONE.items()
                if config.values.get(key) and config.values[key] != neutral
            ),
        )

    def options(self) -> dict[str, Any]:
        """The defaults that there are, as keywords of an answer."""
        return {
            key: value for key, value in asdict(self).items() if key != "ignored" and value is not None and value != ()
        }
