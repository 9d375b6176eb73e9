"""What the endpoints of one server share."""

import asyncio
from dataclasses import dataclass, field
from importlib.metadata import version

from starlette.requests import Request

from smolvlm_edge.server.answering import Answering
from smolvlm_edge.server.metrics import Metrics
from smolvlm_edge.server.problems import busy
from smolvlm_edge.server.residents import Resident, Residents
from smolvlm_edge.server.settings import Settings
from smolvlm_edge.server.slots import Slots
from smolvlm_edge.server.sources import Sources
from smolvlm_edge.server.uploads import Uploads

FINGERPRINT = f"smol-edge-{version('smol-edge')}"


@dataclass(slots=True)
class Service:
    """A server's parts."""

    settings: Settings
    residents: Residents
    slots: Slots
    uploads: Uploads
    sources: Sources
    metrics: Metrics
    answering: Answering
    counting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Conversations are measured one at a time: their pictures are in memory meanwhile."""
    loaded: bool = False
    """Whether the default model is there."""

    @classmethod
    def of(cls, residents: Residents, settings: Settings, parallel: int) -> "Service":
        """Put them together."""
        limits = settings.limits
        slots, uploads = Slots(parallel, limits.waiting), Uploads(limits.uploads_bytes)
        metrics = Metrics(slots)
        answering = Answering(residents, slots, metrics, limits.answer_seconds)
        return cls(settings, residents, slots, uploads, Sources(settings, uploads), metrics, answering)

    def ready(self, model: str | None) -> Resident:
        """The model that a request names.

        Raises:
            HttpError: There is none of that name, the server is still loading, or enough requests wait already.
        """
        resident = self.residents.named(model)
        if not self.loaded:
            raise busy("the model is being loaded", 503)
        self.slots.check()
        return resident


def service_of(request: Request) -> Service:
    """The server that a request came to."""
    return request.app.state.service
