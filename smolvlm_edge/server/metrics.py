"""What /metrics tells, in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from smolvlm_edge.generation.timings import Timings
from smolvlm_edge.server.slots import Slots

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Metrics:
    """Counters of one server."""

    def __init__(self, slots: Slots) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"smol_edge_{name}", what, labels, registry=registry)

        self.requests = counter("requests", "Requests by route and status.", "route", "status")
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self._cached_tokens = counter("cached_prompt_tokens", "Tokens of prompts that were not computed again.")
        self._generated_tokens = counter("generated_tokens", "Tokens of answers.")
        self._tiles = counter("encoded_tiles", "Tiles of pictures that were encoded.")
        self._first = Histogram(
            "smol_edge_time_to_first_token_seconds",
            "From the start of an answer to its first token.",
            buckets=SECONDS,
            registry=registry,
        )
        self._vision = Histogram(
            "smol_edge_vision_seconds", "Encoding the pictures of an answer.", buckets=SECONDS, registry=registry
        )
        for name, what, value in (
            ("running", "Requests that are answered.", lambda: slots.running),
            ("waiting", "Requests that wait.", lambda: slots.waiting),
        ):
            Gauge(f"smol_edge_requests_{name}", what, registry=registry).set_function(value)

    def count(self, timings: Timings) -> None:
        """Add an answer, as far as it came."""
        self._prompt_tokens.inc(timings.prompt_tokens)
        self._cached_tokens.inc(timings.cached_tokens)
        self._generated_tokens.inc(timings.generated_tokens)
        self._tiles.inc(timings.encoded_tiles)
        self._first.observe(timings.ttft_ms / 1000)
        if timings.encoded_tiles:
            self._vision.observe(timings.vision_ms / 1000)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
