"""`smol-edge serve`."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from smolvlm_edge.cli.options import (
    DEMO_NOTE,
    DetailOption,
    EngineOption,
    MemoryOption,
    OfflineOption,
    QuantOption,
    ThreadsOption,
    YesOption,
    complete_model,
    find_model,
)
from smolvlm_edge.errors import RequestError
from smolvlm_edge.graphs.engines import AUTO
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.store import DEFAULT_VARIABLE, DEMO

LOOPBACK = ("127.0.0.1", "::1", "localhost")


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
    quant: QuantOption = "int4",
    offline: OfflineOption = False,
    yes: YesOption = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests that a model answers at once.")] = 1,
    queue: Annotated[int, typer.Option(min=0, help="Requests that wait; more are refused with 429.")] = 32,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for an answer, waiting included.")] = 600.0,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with keys, one a line; a request needs one of them.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on another address than loopback without keys.")
    ] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A website whose scripts may ask; null is a page opened from disk."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name of this server, as clients write it.")
    ] = None,
    fetch_pictures: Annotated[
        bool, typer.Option("--fetch-pictures", help="Fetch http: and https: pictures from the public internet.")
    ] = False,
    media_dir: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder below which file: URLs may point.")
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, metavar="MB", help="Size of a request.")] = 64,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of a picture.")] = 50_000_000,
    max_pictures: Annotated[int, typer.Option(min=0, help="Pictures of a request.")] = 64,
    max_weights: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="MB", help="Size that loaded models may have together; idle ones make room for others."
        ),
    ] = None,
    idle_seconds: Annotated[
        float | None, typer.Option(min=1, help="Unload a model that nobody asked for so long.")
    ] = None,
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
        from smolvlm_edge.server.settings import MB, Limits, Settings, read_api_keys  # noqa: PLC0415
    except ImportError as error:
        raise RequestError(f"a server needs {error.name}: pip install 'smol-edge[server]'") from None
    if host not in LOOPBACK and not api_key_file and not insecure:
        raise RequestError(f"{host} can be reached by others: give --api-key-file, or --insecure to let everybody ask")
    settings = Settings(
        api_keys=read_api_keys(api_key_file) if api_key_file else (),
        origins=tuple(cors or ()),
        hosts=tuple(allow_host or ()),
        fetch_pictures=fetch_pictures,
        media_dir=media_dir,
        detail=detail,
        limits=Limits(
            body_bytes=max_body * MB,
            bodies_bytes=max(8 * max_body, 512) * MB,
            pictures=max_pictures,
            pixels=max_pixels,
            waiting=queue,
            answer_seconds=timeout,
        ),
    )
    if not model:
        print(DEMO_NOTE, file=sys.stderr)
    folders = {}
    for wanted in model or [DEMO]:
        name, _, place = wanted.partition("=")
        folder = find_model(place or name, quant, engine, offline=offline, yes=yes)
        folders[name if place else name_of(name, folder)] = folder
    load = partial(SmolVLM.load, engine=engine, threads=threads, memory=memory)
    residents = Residents(folders, load, max_weights and max_weights * MB, idle_seconds)
    with listen(host, port) as listener:
        address, port = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        print(f"listening on http://{shown}:{port} – {', '.join(folders)}", file=sys.stderr, flush=True)
        run(residents, settings, parallel, listener)
