"""What the server tells about itself: health, models, metrics, its own description."""

from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.server.problems import busy
from smolvlm_edge.server.protocol.state import Health, Model, Models
from smolvlm_edge.server.replies import as_json
from smolvlm_edge.server.residents import Resident
from smolvlm_edge.server.service import service_of


async def health(request: Request) -> Response:
    """Whether questions are answered."""
    if not service_of(request).loaded:
        raise busy("the model is being loaded", 503)
    return as_json(Health())


async def models(request: Request) -> Response:
    """All models by name."""
    return as_json(Models(data=[_model(each) for each in service_of(request).residents.all()]))


async def model(request: Request) -> Response:
    """One of them."""
    return as_json(_model(service_of(request).residents.named(request.path_params["id"])))


async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(resident: Resident) -> Model:
    return Model(id=resident.name, created=resident.created, loaded=resident.model is not None)
