"""What adapter_config.json says of a LoRA adapter, typed, with the defaults of PEFT for keys that older files lack.

Rules of PEFT 0.21.2: tuners/lora/config.py (defaults), utils/other.py `get_pattern_key` (ranks and alphas by module),
tuners/tuners_utils.py `check_target_module_exists` (targets).
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import regex  # as `re`, but with a deadline

from smolvlm_edge.bundle.formats import ADAPTER_CONFIG
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.errors import IntegrityError, UnsupportedModelError
from smolvlm_edge.values import MOST

LONGEST_PATTERN = 10_000
PATTERN_SECONDS = 1
MERGE_WITH_PEFT = "merge it with PEFT first (merge_and_unload, save_pretrained) and export the result"

# variants of LoRA that are no plain sum or are trained for other modules than their tensors' names say
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
# the other initialisations subtract something from the base weights, which only PEFT can do again
_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The values that decide how tensors are merged. Modules are named as in transformers, `model.text_model...`."""

    r: int
    lora_alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool
    lora_bias: bool
    ensure_weight_tying: bool
    target_modules: list[str] | str | None
    trainable_token_indices: Mapping[str, list[int]]

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read adapter_config.json. Where the base model came from, and its task, are of no interest.

        Raises:
            UnsupportedModelError: An adapter that is no LoRA, or a variant of LoRA that is not supported.
            IntegrityError: The file is unreadable, or a value is of the wrong type.
        """
        values = _Values(read_json(folder / ADAPTER_CONFIG))
        values.refuse_unsupported()
        tokens = values.get("trainable_token_indices", (list, dict), {})
        return cls(
            r=_rank(values.get("r", (int,), 8)),
            lora_alpha=_number(values.get("lora_alpha", (int, float), 8)),
            rank_pattern={_pattern(key): _rank(rank) for key, rank in values.get("rank_pattern", (dict,), {}).items()},
            alpha_pattern={
                _pattern(key): _number(alpha) for key, alpha in values.get("alpha_pattern", (dict,), {}).items()
            },
            use_rslora=values.get("use_rslora", (bool,), False),
            use_dora=values.get("use_dora", (bool,), False),
            lora_bias=values.get("lora_bias", (bool,), False),
            ensure_weight_tying=values.get("ensure_weight_tying", (bool,), False),
            target_modules=_targets(values.get("target_modules", (list, str), None)),
            trainable_token_indices={
                name: _indices(indices)
                for name, indices in (tokens if isinstance(tokens, dict) else {"embed_tokens": tokens}).items()
            },
        )

    def rank(self, module: str) -> int:
        """Rank of a module's update."""
        return _by_pattern(self.rank_pattern, module, self.r)

    def scaling(self, module: str) -> float:
        """What a module's update is multiplied by."""
        alpha, rank = _by_pattern(self.alpha_pattern, module, self.lora_alpha), self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def targets(self, module: str) -> bool:
        """Whether the adapter was trained for that module."""
        if self.target_modules in (None, "all-linear"):
            return True
        if isinstance(self.target_modules, str):
            return _matches(self.target_modules, module)
        tied = self.ensure_weight_tying and module == "lm_head"  # PEFT adds it without writing it down
        return tied or any(f".{module}".endswith(f".{target}") for target in self.target_modules or ())

    def token_indices(self, module: str) -> list[int]:
        """The rows of a token table or head that the adapter replaces."""
        found = (rows for name, rows in self.trainable_token_indices.items() if f".{module}".endswith(f".{name}"))
        return next(found, [])


@dataclass(frozen=True, slots=True)
class _Values:
    values: Mapping[str, Any]

    def get(self, key: str, types: tuple[type, ...], default: Any) -> Any:
        value = self.values.get(key)
        if value is not None and type(value) not in types:  # not isinstance: true is no number
            raise _damaged(key, value)
        return default if value is None else value

    def refuse_unsupported(self) -> None:
        kind = self.get("peft_type", (str,), "")
        if kind != "LORA":
            raise UnsupportedModelError(f"{ADAPTER_CONFIG}: peft_type {kind!r} is not supported; {MERGE_WITH_PEFT}")
        for key in _UNSUPPORTED:
            if self.values.get(key):
                raise UnsupportedModelError(f"{ADAPTER_CONFIG}: {key} is not supported; {MERGE_WITH_PEFT}")
        initialisation = self.values.get("init_lora_weights")
        if initialisation not in _INITIALISATIONS:
            raise UnsupportedModelError(
                f"{ADAPTER_CONFIG}: init_lora_weights={initialisation!r} changes the base weights; {MERGE_WITH_PEFT}"
            )


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    return next((value for key, value in patterns.items() if _matches(rf"(.*\.)?({key})", module)), default)


def _matches(pattern: str, module: str) -> bool:
    """Whether a pattern, which a stranger may have written, describes a whole name."""
    try:
        return regex.fullmatch(pattern, module, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        raise IntegrityError(
            f"{ADAPTER_CONFIG}: {pattern[:40]!r} takes more than {PATTERN_SECONDS} s to compare with {module}; "
            f"{MERGE_WITH_PEFT}"
        ) from None


def _rank(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MOST:
        raise _damaged("rank", value)
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise _damaged("lora_alpha", value)
    return float(value)


def _pattern(value: str) -> str:
    try:
        if len(value) > LONGEST_PATTERN:
            raise regex.error(f"more than {LONGEST_PATTERN} characters")
        regex.compile(value)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise IntegrityError(f"{ADAPTER_CONFIG}: {value[:40]!r} is no regular expression ({error})") from error
    return value


def _targets(value: Any) -> list[str] | str | None:
    if isinstance(value, str):
        return _pattern(value)
    if value is not None and not all(isinstance(name, str) for name in value):
        raise _damaged("target_modules", value)
    return value


def _indices(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(index) is int and 0 <= index < MOST for index in value):
        raise _damaged("trainable_token_indices", value)
    return value


def _damaged(key: str, value: Any) -> IntegrityError:
    return IntegrityError(f"{ADAPTER_CONFIG}: {key} cannot be {str(value)[:20]!r}; save the adapter again with PEFT")
