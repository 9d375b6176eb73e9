"""What `--against` means: a bundle in fp32, made for the time being where a checkpoint is named."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from smolvlm_edge.bundle import MANIFEST, Bundle
from smolvlm_edge.cli.options import export_progress
from smolvlm_edge.graphs.choice import Choice, check_engines
from smolvlm_edge.store import fetch, resolve


@contextmanager
def reference_bundle(against: str, choice: Choice, *, offline: bool) -> Iterator[Bundle]:
    """A bundle's folder as it is; a checkpoint, by folder or name, exported to a folder that is removed at the end."""
    target = resolve(against)
    folder = target if isinstance(target, Path) else fetch(target, offline=offline)
    if (folder / MANIFEST).is_file():
        bundle = Bundle.open(folder)
        check_engines(bundle, choice)
        yield bundle
        return
    from smolvlm_edge.export import export_checkpoint  # noqa: PLC0415 - an extra, and slow to import
    from smolvlm_edge.quantize import RECIPES  # noqa: PLC0415

    with TemporaryDirectory(prefix="smol-edge-") as temporary:
        print(f"note: {against} is exported in fp32 to {temporary}, which is removed afterwards", file=sys.stderr)
        with export_progress() as progress:
            out, targets = Path(temporary) / "fp32", sorted({*choice.targets.values()})
            made = export_checkpoint(folder, out, RECIPES["fp32"], targets=targets, progress=progress)
        yield Bundle.open(made)
