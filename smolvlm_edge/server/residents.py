"""The models of a server by name: loaded when they are first asked, unloaded when there is no room or nobody asks."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tokenizers import Tokenizer

from smolvlm_edge.generation.timings import Timings
from smolvlm_edge.model import SmolVLM
from smolvlm_edge.server.problems import HttpError, busy
from smolvlm_edge.server.protocol.common import Usage


class Resident:
    """A model that may be loaded."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        """Of its files: what it takes in memory, roughly."""
        self.created = int(folder.stat().st_mtime)
        self.model: SmolVLM | None = None
        self.users = 0
        self.used_at = 0.0
        self.loading = asyncio.Lock()
        self._tokenizer: Tokenizer | None = None
        self._image_seq_len = 0
        self.eos_token_ids: Collection[int] = ()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of a model that was loaded once."""
        assert self._tokenizer is not None
        return self._tokenizer

    def usage(self, timings: Timings) -> Usage:
        """Tokens that an answer of this model took."""
        return Usage.of(timings, self._image_seq_len)

    def loaded(self, model: SmolVLM) -> None:
        """Hold a model, and what is told of its answers even when it is unloaded again."""
        self.model = model
        self._tokenizer, config = model.prompt_encoder.tokenizer, model.bundle.model
        self._image_seq_len, self.eos_token_ids = config.image_seq_len, config.eos_token_ids


class Residents:
    """All models that a server has."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        load: Callable[[Path], SmolVLM],
        most_bytes: int | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            folders: Bundles by the names that requests have for them, the default first.
            load: How one is loaded.
            most_bytes: So much the loaded ones may take together.
            idle_seconds: After so long without a question a model is unloaded.
        """
        self._residents = {name: Resident(name, folder) for name, folder in folders.items()}
        self._load, self._most_bytes, self._idle_seconds = load, most_bytes, idle_seconds

    def all(self) -> list[Resident]:
        """Loaded or not, the default first."""
        return list(self._residents.values())

    def named(self, name: str | None) -> Resident:
        """The model of a name, or the default.

        Raises:
            HttpError: There is none.
        """
        if not name:
            return self.all()[0]
        if name not in self._residents:
            names = ", ".join(self._residents)
            raise HttpError(
                f"there is no model {name[:80]!r} here, but {names}", 404, param="model", code="model_not_found"
            )
        return self._residents[name]

    @asynccontextmanager
    async def use(self, resident: Resident) -> AsyncGenerator[SmolVLM, None]:
        """The model, loaded if need be, and not unloaded meanwhile.

        Raises:
            HttpError: There is no room for it as long as the others are busy.
            SmolEdgeError: It cannot be loaded.
        """
        resident.users += 1
        try:
            async with resident.loading:
                if resident.model is None:
                    self._make_room(resident)
                    resident.loaded(await asyncio.to_thread(self._load, resident.folder))
            assert resident.model is not None
            yield resident.model
        finally:
            resident.users -= 1
            resident.used_at = time.monotonic()

    async def unload_idle(self) -> None:
        """Unload models that nobody asks, for ever."""
        if self._idle_seconds is None:
            return
        while True:
            for resident in self._loaded():
                if not resident.users and time.monotonic() - resident.used_at >= self._idle_seconds:
                    _unload(resident)
            await asyncio.sleep(min(self._idle_seconds, 10))

    def close(self) -> None:
        """Unload everything."""
        for resident in self._loaded():
            _unload(resident)

    def _loaded(self) -> list[Resident]:
        return [resident for resident in self.all() if resident.model is not None]

    def _make_room(self, wanted: Resident) -> None:
        """Unload models that are not used, the one first that was not asked the longest."""
        if self._most_bytes is None:
            return
        excess = wanted.bytes - self._most_bytes
        excess += sum(each.bytes for each in self.all() if each is not wanted and (each.model or each.users))
        for resident in sorted(self._loaded(), key=lambda each: each.used_at):
            if excess > 0 and not resident.users:
                _unload(resident)
                excess -= resident.bytes
        if excess > 0:
            raise busy(f"there is no room for {wanted.name} as long as other models answer: ask again later", 503)


def _unload(resident: Resident) -> None:
    if resident.model is not None:
        resident.model.close()
        resident.model = None
