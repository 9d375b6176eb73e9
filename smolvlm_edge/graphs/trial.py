"""Which engine is faster here: one tile and one chunk of a prompt on each, when a model by name is first loaded.

What comes of it is kept in the user's cache folder (`store.measured`), so it happens once for a machine, the versions
of the engines and the shape of a bundle. `smol-edge bench --store` measures whole answers, and takes its place.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeVar

import numpy as np

from smolvlm_edge.bundle import HALVES, SUFFIXES, Bundle, Half
from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.errors import SmolEdgeError
from smolvlm_edge.graphs import Engine
from smolvlm_edge.graphs.checks import check_graphs
from smolvlm_edge.graphs.choice import Choice, choose_engines, table_row, usable_engines
from smolvlm_edge.graphs.engines import AUTO, TARGETS, EngineName, installed, open_engine, read_wish
from smolvlm_edge.store.bundles import bundles_home
from smolvlm_edge.store.measured import FIRST_LOAD, measuring_alone, recall, remember

logger = logging.getLogger(__name__)

SWITCH = "SMOL_EDGE_MEASURE"
"""The environment variable that forbids it, with 0."""
MOST_S = 3.0
"""What would take longer in all is left to the table, or to `smol-edge bench`."""
MARGIN = 0.1
"""By how much of its time the table's engine must be beaten: less is chance."""
BUSY = 1.25
"""Threads that compute, for each processor; the export that has just made a bundle keeps every processor busy."""
POSITIONS, TOKENS = 64, 5
"""Of a prompt, and of an answer to it: in proportion as a photo's 874 and 64 in docs/engines.md."""
TOKENS_WORTH = 2 * POSITIONS / 6 + TOKENS + 1
"""What a trial of a decoder costs in tokens; a position of a prompt is computed in a fifth to a ninth of a token's
time (docs/engines.md)."""

Seconds = dict[Half, dict[EngineName, float]]
Result = TypeVar("Result")
_chosen: dict[tuple[object, ...], Choice] = {}
_choosing = Lock()


def choose_once(bundle: Bundle, engine: str, threads: int, *, measure: bool = True) -> Choice:
    """As `choose_engines`, but what `auto` came to is the same for every load of a process.

    So answers do not change with what was measured in between. Before the first choice the engines are tried, if the
    bundle is one of a model by name that both can run, nothing is known of such bundles yet, the machine is not busy,
    and it is not forbidden.

    Raises:
        RequestError, EngineError: As `choose_engines`.
    """
    key = os.path.realpath(bundle.folder), bundle.producer, bundle.targets, engine, threads, tuple(installed())
    with _choosing:
        if (known := _chosen.get(key)) is None:
            if measure and None in read_wish(engine).values():
                measure_once(bundle, threads)
            known = _chosen[key] = choose_engines(bundle, engine, threads)
    return known


def measure_once(bundle: Bundle, threads: int) -> None:
    """Try the engines and keep what comes of it, unless there is nothing to find out or it is not to be."""
    if os.environ.get(SWITCH) == "0" or bundle.folder.parent != bundles_home():
        return
    names = usable_engines(bundle)
    if len(names) == 1 or recall(bundle, threads) or is_busy():
        return
    try:
        with measuring_alone():
            logger.warning(
                "measuring once which engine is faster here, at most about %g s (%s=0 forbids it)", MOST_S, SWITCH
            )
            seconds = try_engines(bundle, names, threads)
            remember(bundle, threads, fastest(seconds), FIRST_LOAD, seconds)
    except OSError:  # another process measures just now (TimeoutError), or nothing can be kept
        return
    except SmolEdgeError as error:
        logger.warning("the engines were not measured: %s", error)


def is_busy() -> bool:
    """Whether more threads compute than there are processors: what is measured beside them would tell nothing."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


def try_engines(bundle: Bundle, names: Sequence[EngineName], threads: int) -> Seconds:
    """Seconds of a tile, and of a chunk of a prompt with some tokens, by half and engine.

    A half that would take longer than what is left of `MOST_S` is not there.

    Raises:
        IntegrityError: A graph is damaged, or is none of smol-edge's.
        EngineError: An engine fails.
    """
    start = time.perf_counter()
    engines: dict[EngineName, Engine] = {}
    decoder_s: dict[EngineName, float] = {}
    opening_s = tiles_s = 0.0  # what the vision encoders are expected to take

    def left() -> float:
        return MOST_S - (time.perf_counter() - start)

    for name in names:
        if engines and left() < MOST_S / 2:  # the first one took more than its share, and others open no sooner
            return {}
        targets = dict.fromkeys(HALVES, TARGETS[name])
        bundle.verify(targets)
        check_graphs(bundle, targets)
        engines[name] = open_engine(name, threads)
        if (times := _decoder_seconds(engines[name], bundle, left())) is None:
            return {}
        opened_s, prompt_s, decoder_s[name] = times
        opening_s += opened_s * _size(bundle, "vision", name) / _size(bundle, "decoder", name)
        tiles_s += prompt_s * _tiles_worth(bundle.model)
    found: Seconds = {"decoder": decoder_s}
    for runs in (2, 1):  # the first may have to make kernels
        if opening_s + runs * tiles_s <= left():
            found["vision"] = {name: _tile_seconds(engine, bundle, runs) for name, engine in engines.items()}
            break
    return found


def fastest(seconds: Seconds) -> str:
    """The engine of each half that was measured, as `--engine` takes it: the table's, unless it is clearly beaten."""
    picks = {}
    for half, times in seconds.items():
        usual, best = table_row().picks[half], min(times, key=lambda name: times[name])
        picks[half] = best if times[best] < (1 - MARGIN) * times[usual] else usual
    return ",".join(f"{half}={picks[half]}" for half in HALVES if half in picks) or AUTO


def _decoder_seconds(engine: Engine, bundle: Bundle, most_s: float) -> tuple[float, float, float] | None:
    """Seconds to open the decoder, for a chunk of a prompt, and for that and some tokens; None if that is too slow."""
    embeds = np.random.default_rng(0).standard_normal((POSITIONS, bundle.model.text.hidden_size), np.float32)
    decoder, opened_s = _timed(lambda: engine.decoder(bundle.graph_path("decoder", engine.target)))
    try:
        _, token_s = _timed(lambda: decoder(embeds[:1]))
        if opened_s + token_s * TOKENS_WORTH > most_s:
            return None
        decoder(embeds)
        decoder.truncate(0)
        _, prompt_s = _timed(lambda: decoder(embeds))
        _, tokens_s = _timed(lambda: [decoder(embeds[:1]) for _ in range(TOKENS)])
    finally:
        decoder.close()
    return opened_s, prompt_s, prompt_s + tokens_s


def _tile_seconds(engine: Engine, bundle: Bundle, runs: int) -> float:
    config = bundle.model.vision
    shape = (1, config.num_channels, config.image_size, config.image_size)
    pixels = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    graphs = [engine.graph(bundle.graph_path(name, engine.target)) for name in HALVES["vision"]]
    try:
        vision_encoder, connector = graphs
        return min(_timed(lambda: connector(vision_encoder(pixels)))[1] for _ in range(runs))
    finally:
        for graph in graphs:
            graph.close()


def _timed(do: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = do()
    return result, time.perf_counter() - start


def _tiles_worth(model: ModelConfig) -> float:
    """Multiplications of a tile beside those of the chunk of a prompt."""
    vision, text = model.vision, model.text
    patches = vision.patches_per_side**2
    matrices = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    tile = patches * vision.num_hidden_layers * (matrices + 2 * patches * vision.hidden_size)
    heads = 2 * (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
    position = text.num_hidden_layers * text.hidden_size * (heads + 3 * text.intermediate_size)
    return tile / (POSITIONS * position)


def _size(bundle: Bundle, half: Half, engine: EngineName) -> int:
    """Bytes of the graphs of a half; in `decoder` the decoder alone, which is what was opened."""
    names = HALVES[half] if half == "vision" else ("decoder",)
    return sum(bundle.files[name + suffix].size for name in names for suffix in SUFFIXES[TARGETS[engine]])
