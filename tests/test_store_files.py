"""Small files of the store that are damaged: known to be so in one line, or made anew."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from smolvlm_edge import IntegrityError
from smolvlm_edge.store import lockfile, measured, verified
from smolvlm_edge.store.lockfile import LockedFile
from smolvlm_edge.store.staging import staged


@pytest.mark.parametrize("data", [b"[", b"\xff\xfe", b"a = 1", b'["x"]\nfiles = 3', b'["x".files]\n"a" = 1'])
def test_a_damaged_models_lock(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.lock").write_bytes(data)
    monkeypatch.setattr(lockfile, "PLACES", (tmp_path / "models.lock",))
    with pytest.raises(IntegrityError, match="force-reinstall"):
        lockfile.locked_models.__wrapped__()


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"a": [1]}', "7", '{"a": {}}', "\0"])
def test_damaged_memories_are_forgotten(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMOL_EDGE_HOME", str(tmp_path))
    for name in ("verified.json", measured.FILE):
        (tmp_path / name).write_text(text)
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", in FIPS 180-2
    verified.check_file(path, LockedFile(3, digest), missing="", changed="")
    assert isinstance(measured._entries(), dict)


def test_a_file_with_the_size_and_time_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent damage of a disk changes neither; `models verify` reads again."""
    monkeypatch.setenv("SMOL_EDGE_HOME", str(tmp_path / "home"))
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    verified.check_file(path, LockedFile(3, digest), missing="", changed="")
    before = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    verified.check_file(path, LockedFile(3, digest), missing="", changed="")
    with pytest.raises(IntegrityError, match="sha256 differs"):
        verified.check_file(path, LockedFile(3, digest), missing="", changed="", again=True)


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with suppress(RuntimeError), staged(tmp_path / "made") as private:
        (private / "half").write_text("")
        raise RuntimeError
    assert [*tmp_path.iterdir()] == []
    (tmp_path / ".dead.partial").mkdir()  # of a process that was killed
    (tmp_path / ".dead.partial.lock").touch()
    with staged(tmp_path / "made") as private:
        (private / "whole").write_text("first")
        with staged(tmp_path / "made") as second:  # another process, which is sooner
            (second / "whole").write_text("second")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "whole").read_text() == "second"
