"""A static host for this page: python examples/browser/serve.py [PORT]; any other one does as well.

It sends the two headers that isolate a page, so that WebAssembly gets threads from the first visit on; on a host that
does not, the page's service worker adds them. With --plain it does not send them.
"""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Files of this folder."""

    isolated = True

    def end_headers(self) -> None:
        """Add the headers to every answer."""
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


if __name__ == "__main__":
    Handler.isolated = "--plain" not in sys.argv
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    server = ThreadingHTTPServer(
        ("127.0.0.1", (numbers or [8000])[0]), partial(Handler, directory=str(Path(__file__).parent))
    )
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
