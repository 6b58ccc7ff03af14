"""A program that answers findings to Pleura (docs/findings-protocol.md), with nothing but Python, NumPy and Pillow.

It calls an image an opacity where a third of its middle is bright, and draws a box there: a place for your own network.
Start it with `python findings_server.py 9000`.
"""

import base64
import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

MODEL = {"name": "bright-middle", "version": "1.0.0"}
OPACITY = {"value": "128477000", "scheme": "SCT"}


def describe():
    """What this program is; Pleura's manifest pins it."""
    return {
        "protocol_version": 1,
        **MODEL,
        "findings": [{"code": OPACITY, "meaning": "Abscess"}],
        "not_for": ["Not for patients: it looks at brightness alone."],
    }


def analyse(request):
    """The findings of one radiograph."""
    image = request["image"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["data"])))) / 65535
    rows, columns = pixels.shape
    top, left = rows // 4, columns // 4
    middle = pixels[top : rows - top, left : columns - left]
    share = float((middle > 0.6).mean())
    probability = min(1.0, 1.5 * share)
    finding = {"code": OPACITY, "probability": probability}
    if probability >= 0.5:
        box = {"x": left, "y": top, "width": middle.shape[1], "height": middle.shape[0], "probability": probability}
        finding["boxes"] = [box]
    return {"protocol_version": 1, "model": MODEL, "findings": [finding]}


class Handler(BaseHTTPRequestHandler):
    """Two paths: GET /model and POST /findings."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Describe the model."""
        self.answer(describe() if self.path == "/model" else None)

    def do_POST(self):
        """Answer the findings."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(analyse(json.loads(body)) if self.path == "/findings" else None)

    def answer(self, said):
        """Send JSON; 404 for None."""
        content = json.dumps(said).encode()
        self.send_response(404 if said is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
