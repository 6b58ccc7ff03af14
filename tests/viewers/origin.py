"""One web origin for a viewer: its static files, our own pages and Orthanc's DICOMweb behind a proxy.

OHIF decodes in workers that share memory, which a browser grants only to a cross-origin isolated page: everything
comes from one origin with ``Cross-Origin-Opener-Policy: same-origin`` and
``Cross-Origin-Embedder-Policy: require-corp``.
"""

from __future__ import annotations

import http.client
import json
import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLDER = Path(__file__).resolve().parent
MODULES = (FOLDER / "node_modules").resolve()
OHIF = MODULES / "@ohif" / "app" / "dist"
_FOLDERS = (
    # dwv asks for its decoders beside the page that uses it.
    ("/pages/assets/", MODULES / "dwv" / "dist" / "assets"),
    ("/pages/", FOLDER / "pages"),
    ("/modules/", MODULES),
    ("/", OHIF),
)
_PROXIED = ("/dicom-web/", "/wado")
_NOT_FORWARDED = {
    "accept-encoding",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "date",
    "server",
}
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def app_config(origin: str) -> str:
    """OHIF's ``app-config.js``: one DICOMweb data source on this very origin, thumbnails and pixels by WADO-RS."""
    root = f"http://{origin}/dicom-web"
    configuration = {
        "friendlyName": "Orthanc",
        "name": "orthanc",
        "qidoRoot": root,
        "wadoRoot": root,
        "wadoUriRoot": f"http://{origin}/wado",
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
        "omitQuotationForMultipartRequest": True,
    }
    value = {
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 1,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": False,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "orthanc",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "orthanc",
                "configuration": configuration,
            }
        ],
    }
    return f"window.config = {json.dumps(value)};"


@dataclass(frozen=True)
class OwnServer:
    """A node's DICOMweb server, which is asked for ``series`` instead of Orthanc."""

    port: int
    token: str
    series: frozenset[str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    orthanc_port: int = 0
    own: OwnServer | None = None

    @property
    def origin(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet: what a page asked for is seen in the browser's own record."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith(_PROXIED):
            self._proxy()
        elif path == "/app-config.js":
            self._answer(200, app_config(self.server.origin).encode(), "text/javascript")
        else:
            self._file(path)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._proxy()

    def _file(self, path: str) -> None:
        """Send a file of a viewer; an unknown path without a suffix is a route of OHIF and gets its index page."""
        for prefix, folder in _FOLDERS:
            if path.startswith(prefix):
                wanted = (folder / path.removeprefix(prefix)).resolve()
                break
        if wanted.is_relative_to(folder) and wanted.is_file():
            kind = mimetypes.guess_type(wanted.name)[0] or "application/octet-stream"
            self._answer(200, wanted.read_bytes(), "application/wasm" if wanted.suffix == ".wasm" else kind)
        elif folder == OHIF and not Path(path).suffix:
            self._answer(200, (OHIF / "index.html").read_bytes(), "text/html")
        else:
            self._answer(404, b"not found", "text/plain")

    def _proxy(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_FORWARDED}
        port, own = self.server.orthanc_port, self.server.own
        if own and not own.series.isdisjoint(urlsplit(self.path).path.split("/")):
            port, headers["Authorization"] = own.port, f"Bearer {own.token}"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(self.command, self.path, self.rfile.read(length) if length else None, headers)
            answer = connection.getresponse()
            kind = answer.headers.get("Content-Type", "application/octet-stream")
            self._answer(answer.status, answer.read(), kind)
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_ISOLATION, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Origin:
    """A running web origin; ``connect`` names the Orthanc behind it once that one has a port."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.address = server.origin

    def connect(self, orthanc_port: int) -> None:
        """Proxy DICOMweb to the Orthanc that listens on ``orthanc_port``."""
        self._server.orthanc_port = orthanc_port

    def ask(self, own: OwnServer | None) -> None:
        """Ask a node for its own series; None: ask Orthanc for all."""
        self._server.own = own


@contextmanager
def running_origin() -> Iterator[Origin]:
    """Serve until the block ends, on a free port of loopback."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, name="viewer-origin", daemon=True)
    thread.start()
    try:
        yield Origin(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
