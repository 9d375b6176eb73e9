"""Options that belong together, as one parameter of a command."""

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from smolvlm_edge.bundle import Wanted
from smolvlm_edge.cli.options import (
    DEMO_NOTE,
    EngineOption,
    EngineSettingsOption,
    MaxTokensOption,
    MinPOption,
    ModelOption,
    OfflineOption,
    QuantOption,
    RepetitionPenaltyOption,
    SeedOption,
    StopOption,
    TemperatureOption,
    ThreadsOption,
    TopKOption,
    TopPOption,
    TrustOption,
    YesOption,
    find_bundle,
    parallel_number,
)
from smolvlm_edge.generation.answer import GenerateOptions
from smolvlm_edge.generation.network import Memory
from smolvlm_edge.graphs.choice import wanted_targets
from smolvlm_edge.graphs.engines import AUTO, read_engine_options
from smolvlm_edge.model import SmolVLM


@dataclass(frozen=True)
class MakingOptions:
    """How a bundle is made of a model that is named and has none here."""

    quant: QuantOption = "int4"
    offline: OfflineOption = False
    yes: YesOption = False

    def find(self, model: str | None, wanted: Wanted) -> Path:
        """The bundle's folder; on a terminal, asks before a download and shows its progress."""
        return find_bundle(model, self.quant, wanted, offline=self.offline, yes=self.yes)


@dataclass(frozen=True)
class ModelOptions:
    """Which model answers, and what computes."""

    model: ModelOption = None
    making: MakingOptions = field(default_factory=MakingOptions)
    engine: EngineOption = AUTO
    threads: ThreadsOption = None
    engine_option: EngineSettingsOption = None
    trust: TrustOption = False

    def find(self) -> Path:
        """The bundle's folder, as `MakingOptions.find`; settings that are none are refused before."""
        read_engine_options(self.engine_option or ())
        return self.making.find(self.model, wanted_targets(self.engine))

    def load(self, folder: Path, memory: Memory = "balanced", parallel: str = "1") -> SmolVLM:
        """The model of a bundle that was found, to answer as many at once as --parallel says."""
        width = parallel_number(parallel)
        settings = read_engine_options(self.engine_option or ())
        return SmolVLM.load(
            folder,
            engine=self.engine,
            threads=self.threads,
            memory=memory,
            parallel=width,
            trust=self.trust,
            engine_options=settings,
        )

    def tell(self) -> None:
        """Say on stderr what the demonstration model knows, if that is the one that answers."""
        if self.model is None:
            print(DEMO_NOTE, file=sys.stderr)


@dataclass(frozen=True)
class SamplingOptions:
    """How long an answer may be, and how its tokens are chosen. What is not said stays with the model's defaults."""

    max_tokens: MaxTokensOption = None
    temperature: TemperatureOption = None
    top_k: TopKOption = None
    top_p: TopPOption = None
    min_p: MinPOption = None
    repetition_penalty: RepetitionPenaltyOption = None
    seed: SeedOption = None
    stop: StopOption = None

    def to_generate(self) -> GenerateOptions:
        """What was said, as `SmolVLM.generate` takes it."""
        said = {name: value for name, value in asdict(self).items() if value not in (None, [])}
        return GenerateOptions(**said)  # type: ignore[typeddict-item]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer reads it, which knows no groups: an option for each field of such a parameter."""
    parameters = inspect.signature(command).parameters
    groups = {name: each.annotation for name, each in parameters.items() if is_dataclass(each.annotation)}

    @wraps(command)
    def flat(**values: Any) -> None:
        command(**{name: _filled(group, values) for name, group in groups.items()}, **values)

    signature = inspect.Signature([each for parameter in parameters.values() for each in _flattened(parameter)])
    flat.__signature__ = signature  # type: ignore[attr-defined]
    flat.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return flat


def _flattened(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    if not is_dataclass(parameter.annotation):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    for each in fields(parameter.annotation):
        yield from _flattened(
            inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=_default(each), annotation=each.type)
        )


def _default(option: Field[Any]) -> Any:
    return inspect.Parameter.empty if option.default is MISSING else option.default


def _filled(group: Any, values: dict[str, Any]) -> Any:
    """A group, of the values of its fields, which are taken out of `values`."""
    nested = {each.name: each.type for each in fields(group)}
    return group(
        **{name: _filled(kind, values) if is_dataclass(kind) else values.pop(name) for name, kind in nested.items()}
    )
