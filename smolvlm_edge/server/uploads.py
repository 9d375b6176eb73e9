"""Files that clients uploaded to ask about them more than once. They are in memory only, and go when it is full."""

import time
import uuid
from dataclasses import dataclass, field

from smolvlm_edge.server.problems import HttpError


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture or video."""

    data: bytes
    filename: str
    id: str = field(default_factory=lambda: f"file-{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))


class Uploads:
    """What was uploaded, by id."""

    def __init__(self, capacity: int) -> None:
        """Keep so many bytes; what was not asked for the longest goes first."""
        self._capacity = capacity
        self._files: dict[str, Upload] = {}

    def add(self, data: bytes, filename: str) -> Upload:
        """Keep a file.

        Raises:
            HttpError: It is empty, or too large on its own.
        """
        if not data:
            raise HttpError("the file is empty", param="file")
        if len(data) > self._capacity:
            raise HttpError(f"a file may have {self._capacity >> 20} MB", 413, param="file")
        excess = len(data) + sum(len(each.data) for each in self._files.values()) - self._capacity
        while excess > 0:
            excess -= len(self._files.pop(next(iter(self._files))).data)
        upload = Upload(data, filename)
        self._files[upload.id] = upload
        return upload

    def get(self, id_: str, param: str | None = None) -> Upload:
        """One of them.

        Raises:
            HttpError: It is not there, or not any more.
        """
        upload = self._files.pop(id_, None)
        if upload is None:
            raise HttpError(f"there is no file {id_[:60]!r}, or no longer: upload it again", 404, param=param)
        self._files[id_] = upload  # the last one to go now
        return upload

    def all(self) -> list[Upload]:
        """All of them."""
        return list(self._files.values())

    def remove(self, id_: str) -> None:
        """Forget one; raises what `get` raises."""
        self.get(id_)
        del self._files[id_]
