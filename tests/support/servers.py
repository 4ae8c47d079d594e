"""A web server on this machine, for tests of what is fetched."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer:
    """Answers in a thread at `url`, by a handler of the test's own, until it is closed."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Hub(LocalServer):
    """A hub with the weights of some repositories, all at one revision."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.asked: list[str] = []
        hub = self
        files = {f"/{repository}/resolve/main/model.safetensors": data for repository, data in contents.items()}

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self.wfile.write(self._answer())

            def _answer(self) -> bytes:
                hub.asked.append(self.path)
                content = files.get(self.path.replace(f"/{'0' * 40}/", "/main/"))
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                if content is None:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()
                return content or b""

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)
