"""`smol-edge serve`."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smolvlm_edge.cli.groups import MakingOptions, grouped
from smolvlm_edge.cli.options import (
    DEMO_NOTE,
    DetailOption,
    EngineOption,
    MemoryOption,
    ThreadsOption,
    complete_model,
)
from smolvlm_edge.errors import RequestError
from smolvlm_edge.graphs.choice import wanted_targets
from smolvlm_edge.graphs.engines import AUTO
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.store import DEFAULT_VARIABLE, DEMO

if TYPE_CHECKING:
    from smolvlm_edge.server.settings import Limits

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class AccessOptions:
    """Who may ask, and what the server opens for them."""

    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with keys, one a line; a request needs one of them.")
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on another address than loopback without keys.")
    ] = False
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A website whose scripts may ask; null is a page opened from disk."),
    ] = None
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name of this server, as clients write it.")
    ] = None
    fetch_pictures: Annotated[
        bool, typer.Option("--fetch-pictures", help="Fetch http: and https: pictures from the public internet.")
    ] = False
    media_dir: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder below which file: URLs may point.")
    ] = None
    site: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder of plain files that everybody is shown at /site/, isolated."
        ),
    ] = None


@dataclass(frozen=True)
class LimitOptions:
    """How much the server takes."""

    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests that a model answers at once.")] = 1
    queue: Annotated[int, typer.Option(min=0, help="Requests that wait; more are refused with 429.")] = 32
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for an answer, waiting included.")] = 600.0
    max_body: Annotated[int, typer.Option(min=1, metavar="MB", help="Size of a request.")] = 64
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of a picture.")] = 50_000_000
    max_pictures: Annotated[int, typer.Option(min=0, help="Pictures of a request.")] = 64
    max_weights: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="MB", help="Size that loaded models may have together; idle ones make room for others."
        ),
    ] = None
    idle_seconds: Annotated[float | None, typer.Option(min=1, help="Unload a model that nobody asked for so long.")] = (
        None
    )

    def limits(self) -> "Limits":
        """As the server takes them."""
        from smolvlm_edge.server.settings import MB, Limits  # noqa: PLC0415 - an extra

        return Limits(
            body_bytes=self.max_body * MB,
            bodies_bytes=max(8 * self.max_body, 512) * MB,
            pictures=self.max_pictures,
            pixels=self.max_pixels,
            waiting=self.queue,
            answer_seconds=self.timeout,
        )


@grouped
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model by name or folder, or NAME=MODEL; several may be given, the first is the default.",
            envvar=DEFAULT_VARIABLE,
            show_default=DEMO,
            autocompletion=complete_model,
        ),
    ] = None,
    *,
    making: MakingOptions,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    access: AccessOptions,
    limit: LimitOptions,
    engine: EngineOption = AUTO,
    threads: ThreadsOption = None,
    memory: MemoryOption = "balanced",
    detail: DetailOption = "high",
) -> None:
    """Answer over HTTP, in the protocol of OpenAI's clients; a page to try it is at /.

    Example: smol-edge serve --model smolvlm-256m
    Example: smol-edge serve --model smolvlm-500m --host 0.0.0.0 --api-key-file keys.txt
    """
    try:
        from smolvlm_edge.server.residents import Residents  # noqa: PLC0415 - an extra
        from smolvlm_edge.server.run import listen, name_of, run  # noqa: PLC0415
        from smolvlm_edge.server.settings import MB, Settings, read_api_keys  # noqa: PLC0415
    except ImportError as error:
        raise RequestError.of_missing("a server needs", error.name, "server") from None
    if host not in LOOPBACK and not access.api_key_file and not access.insecure:
        raise RequestError(f"{host} can be reached by others: give --api-key-file, or --insecure to let everybody ask")
    settings = Settings(
        api_keys=read_api_keys(access.api_key_file) if access.api_key_file else (),
        origins=tuple(access.cors or ()),
        hosts=tuple(access.allow_host or ()),
        fetch_pictures=access.fetch_pictures,
        media_dir=access.media_dir,
        site=access.site,
        detail=detail,
        limits=limit.limits(),
    )
    if not model:
        print(DEMO_NOTE, file=sys.stderr)
    folders = {}
    for wanted in model or [DEMO]:
        name, _, place = wanted.partition("=")
        folder = making.find(place or name, wanted_targets(engine))
        folders[name if place else name_of(name, folder)] = folder
    load = partial(SmolVLM.load, engine=engine, threads=threads, memory=memory, parallel=limit.parallel)
    residents = Residents(folders, load, limit.max_weights and limit.max_weights * MB, limit.idle_seconds)
    with listen(host, port) as listener:
        address, port = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        print(f"listening on http://{shown}:{port} – {', '.join(folders)}", file=sys.stderr, flush=True)
        run(residents, settings, limit.parallel, listener)
