"""`smol-edge models`: what is known by name, what is on this machine, and how to fetch, check and remove it."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.bundle.formats import CHECKPOINT
from smolvlm_edge.cli.options import OfflineOption, complete_model
from smolvlm_edge.errors import ModelNotFoundError, RequestError, SmolEdgeError
from smolvlm_edge.store import Source, bundles, fetch, find, resolve, verify
from smolvlm_edge.store.lockfile import locked_at, locked_models

models = typer.Typer(
    help="Models by name: list, pull, verify, path, rm, lock.", no_args_is_help=True, pretty_exceptions_enable=False
)
NameArgument = Annotated[
    str, typer.Argument(help="A short name, or owner/name[@revision].", autocompletion=complete_model)
]


@dataclass(frozen=True, slots=True)
class _Row:
    """What `list` says of a model."""

    name: str
    about: str
    repo: str
    revision: str
    licence: str | None
    parameters: int | None
    download_bytes: int | None
    pinned: str
    checkpoint: bool
    bundles: list[str]


@models.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False) -> None:
    """The models that have a short name, and which of them are here."""
    rows, made = [], bundles.made()
    for model in locked_models().values():
        pinned = (model.repo, model.revision)
        rows.append(
            _Row(
                name=model.alias,
                about=model.about,
                repo=model.repo,
                revision=model.revision,
                licence=model.licence,
                parameters=model.parameters,
                download_bytes=model.weight_bytes,
                pinned="sha256" if model.hashed else "commit",
                checkpoint=_is_here(Source(model.alias, *pinned)),
                bundles=sorted(_label(each) for each in made if (each.source, each.revision) == pinned),
            )
        )
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    table = Table("name", "download", "pinned by", "here", "what for", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for row in rows:
        here = [*(["checkpoint"] if row.checkpoint else []), *row.bundles]
        size = f"{row.download_bytes / 1e6:,.0f} MB" if row.download_bytes else "?"
        table.add_row(row.name, size, row.pinned, " ".join(here) or "-", row.about)
    Console(highlight=False, soft_wrap=True).print(table)


@models.command()
def pull(name: NameArgument) -> None:
    """Download a checkpoint, or what is missing of it, and check it.

    Example: smol-edge models pull smolvlm-256m
    """
    print(fetch(_source(name), update=True))


@models.command("verify")
def verify_model(name: NameArgument) -> None:
    """Read a downloaded checkpoint again and compare it with models.lock."""
    snapshot = find(_source(name), offline=True)
    compared = verify(snapshot, again=True)
    print(
        f"{snapshot.folder}: " + (f"{compared} files have their sha256" if compared else "pinned by the commit alone")
    )


@models.command()
def path(name: NameArgument, offline: OfflineOption = False) -> None:
    """Print the folder of a checkpoint, downloading it first if need be."""
    print(fetch(_source(name), offline=offline))


@models.command()
def rm(name: NameArgument) -> None:
    """Remove a checkpoint and the bundles made of it from this machine."""
    from smolvlm_edge.store import hub  # noqa: PLC0415 - slow to import

    source = _source(name)
    commit = source.commit or hub.commit_here(source.repo, source.revision)
    freed = bundles.remove(source) + (hub.remove(source.repo, commit) if commit else 0)
    if not freed:
        raise ModelNotFoundError(f"nothing of {name} is on this machine")
    print(f"{freed / 1e6:,.0f} MB freed")


@models.command()
def lock(name: NameArgument) -> None:
    """Print the entry of models.lock with the size and sha256 of what was downloaded.

    Example: smol-edge models lock smolvlm-2.2b
    """
    source = _source(name)
    locked = locked_at(source.commit) if source.commit else None
    if locked is None:
        raise RequestError(f"{name} has no entry in models.lock: it begins with a name, a repository and a commit")
    print(locked.with_files_of(fetch(source, offline=True), CHECKPOINT.wants).to_toml(), end="")


def _is_here(source: Source) -> bool:
    try:
        find(source, offline=True)
    except SmolEdgeError:
        return False
    return True


def _label(bundle: Bundle) -> str:
    targets = "" if bundle.targets == ("onnx",) else "-" + "-".join(bundle.targets)
    return f"{bundle.recipe['name']}{targets}"


def _source(name: str) -> Source:
    source = resolve(name)
    if not isinstance(source, Source):
        raise RequestError(f"{name} is a folder on this machine: name a model of the hub")
    return source
