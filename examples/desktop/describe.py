"""A window that describes the picture that is opened in it, dropped on it or named on the command line.

The model works in a thread of its own and the window shows what arrives; another picture ends the answer about the one
before. Whole answers are printed, too. Dropping needs `pip install tkinterdnd2`; all else comes with Python.
"""

import queue
import sys
import threading
import tkinter as tk
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tkinter import filedialog, ttk

from PIL import Image, ImageOps, ImageTk

from smolvlm_edge import SmolEdgeError, SmolVLM, StoppedError

PREVIEW = 384  # pixels
HINT = "Open a picture, or name one on the command line. Return asks another question about it."
INK, PAPER, WHITE, DIM, BLUE, RED = "#1f2430", "#f3f2ee", "#ffffff", "#767b87", "#2f6fdb", "#b3352b"

Question = tuple[threading.Event, Path, str]


class Describer(threading.Thread):
    """Answers one question at a time. What it has to say goes into `replies`: (to which question, kind, content)."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: queue.SimpleQueue[tuple[threading.Event, str, object]] = queue.SimpleQueue()
        self.current = threading.Event()
        """The last question; set, it ends its answer."""
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()

    def ask(self, picture: Path, question: str) -> None:
        """Ask about a picture, and no longer about the one before."""
        self.current.set()
        self.current = threading.Event()
        self._questions.put((self.current, picture, question))

    def close(self) -> None:
        """End the answer under way, and the thread."""
        self.current.set()
        self._questions.put(None)
        self.join()

    def run(self) -> None:
        """Answer until the program ends."""
        model: SmolVLM | None = None
        for cancel, picture, question in iter(self._questions.get, None):
            try:
                self.replies.put((cancel, "preview", preview(picture)))
                model = model or SmolVLM.load()
                for chunk in model.stream(picture, question, cancel=cancel):
                    self.replies.put((cancel, "text", chunk.text))
                self.replies.put((cancel, "end", chunk.timings.generated_tokens))
            except StoppedError:
                continue
            except SmolEdgeError as error:
                self.replies.put((cancel, "error", str(error)))


def preview(path: Path) -> Image.Image | None:
    """A small copy to show; None if there is no picture, which the model says better."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (PREVIEW, PREVIEW))  # a large photograph is decoded small
            small = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception:  # noqa: BLE001 - a damaged file may raise anything
        return None
    small.thumbnail((PREVIEW, PREVIEW))
    return small


class Window:
    """What is seen."""

    def __init__(self, root: tk.Tk, describer: Describer) -> None:
        self._describer = describer
        self._picture: Path | None = None
        self._photo: ImageTk.PhotoImage | None = None  # Tk keeps no reference to it
        self._root = root
        root.title("Describe a picture")
        root.configure(background=PAPER, padx=20, pady=16)
        _style()

        top = ttk.Frame(root)
        ttk.Label(top, text="Describe a picture", style="Title.TLabel").pack(side="left")
        ttk.Button(top, text="Open …", command=self._choose, style="Open.TButton").pack(side="right")
        top.pack(fill="x", pady=(0, 12))

        middle = ttk.Frame(root)
        options = {"background": WHITE, "highlightthickness": 1, "highlightbackground": "#d9d7d0"}
        self._canvas = tk.Canvas(middle, width=PREVIEW, height=PREVIEW, **options)
        self._canvas.pack(side="left")
        right = ttk.Frame(middle)
        ttk.Label(right, text="Question", style="Dim.TLabel").pack(anchor="w")
        self._question = ttk.Entry(right, font=("TkDefaultFont", 12))
        self._question.insert(0, "describe")
        self._question.bind("<Return>", lambda _: self._ask())
        self._question.pack(fill="x", pady=(2, 12))
        ttk.Label(right, text="Answer", style="Dim.TLabel").pack(anchor="w")
        self._answer = tk.Text(right, width=34, height=11, wrap="word", padx=10, pady=8, relief="flat", **options)
        self._answer.configure(font=("TkDefaultFont", 13), foreground=INK, spacing2=4, state="disabled")
        self._answer.tag_configure("error", foreground=RED)
        self._answer.pack(fill="both", expand=True, pady=(2, 0))
        right.pack(side="left", fill="both", expand=True, padx=(16, 0))
        middle.pack(fill="both", expand=True)

        self._status = ttk.Label(root, style="Dim.TLabel", text=HINT)
        self._status.pack(anchor="w", pady=(12, 0))
        self._show: dict[str, Callable[[object], None]] = {
            "preview": self._show_picture,
            "text": self._add_text,
            "error": self._show_error,
            "end": self._finish,
        }
        self._poll()

    def open(self, picture: Path) -> None:
        """Show a picture and ask about it."""
        self._picture = picture
        self._ask()

    def _choose(self) -> None:
        if name := filedialog.askopenfilename(parent=self._root, title="Open a picture"):
            self.open(Path(name))

    def _ask(self) -> None:
        if self._picture is None:
            return
        self._clear()
        self._status.configure(text=f"{self._picture.name}: looking at it …")
        self._describer.ask(self._picture, self._question.get())

    def _poll(self) -> None:
        """Show what has arrived, and look again soon: only this thread may touch the window."""
        self._root.after(30, self._poll)
        while not self._describer.replies.empty():
            question, kind, content = self._describer.replies.get()
            if question is self._describer.current:
                self._show[kind](content)

    def _show_picture(self, picture: object) -> None:
        self._canvas.delete("all")
        if isinstance(picture, Image.Image):
            self._photo = ImageTk.PhotoImage(picture)
            self._canvas.create_image(PREVIEW // 2 + 1, PREVIEW // 2 + 1, image=self._photo)

    def _add_text(self, text: object, *tags: str) -> None:
        self._answer.configure(state="normal")
        self._answer.insert("end", str(text), tags)
        self._answer.configure(state="disabled")
        self._answer.see("end")

    def _show_error(self, error: object) -> None:
        self._clear()
        self._add_text(error, "error")
        self._finish(0)

    def _clear(self) -> None:
        self._answer.configure(state="normal")
        self._answer.delete("1.0", "end")
        self._answer.configure(state="disabled")

    def _finish(self, tokens: object) -> None:
        name = self._picture.name if self._picture else ""
        self._status.configure(text=f"{name}: {tokens} tokens" if tokens else name)
        if sys.stdout:  # a windowed program on Windows has none
            print(f"{name}: {self._answer.get('1.0', 'end').strip()}", flush=True)


def _style() -> None:
    style = ttk.Style()
    style.theme_use("clam")
    style.configure(".", background=PAPER, foreground=INK, font=("TkDefaultFont", 11))
    style.configure("Title.TLabel", font=("TkDefaultFont", 17, "bold"))
    style.configure("Dim.TLabel", foreground=DIM, font=("TkDefaultFont", 10))
    style.configure(
        "TEntry", fieldbackground=WHITE, bordercolor="#d9d7d0", lightcolor=WHITE, darkcolor=WHITE, padding=6
    )
    style.configure("Open.TButton", background=BLUE, foreground=WHITE, borderwidth=0, padding=(16, 7))
    style.map("Open.TButton", background=[("active", "#255bb8")])


def main() -> None:
    """Open the window, with the picture that is named if there is one."""
    try:
        dnd = import_module("tkinterdnd2")
        root = dnd.TkinterDnD.Tk()
    except ImportError:
        dnd, root = None, tk.Tk()
    describer = Describer()
    window = Window(root, describer)
    if dnd:
        root.drop_target_register(dnd.DND_FILES)
        root.dnd_bind("<<Drop>>", lambda event: window.open(Path(root.tk.splitlist(event.data)[0])))
    if len(sys.argv) > 1:
        window.open(Path(sys.argv[1]))
    describer.start()
    try:
        root.mainloop()
    finally:
        describer.close()


if __name__ == "__main__":
    main()
