"""What PyInstaller has to know to freeze an application that uses smol-edge; it looks here of its own accord."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Folders with hooks; the entry point of the group `pyinstaller40`."""
    return [str(Path(__file__).parent)]
