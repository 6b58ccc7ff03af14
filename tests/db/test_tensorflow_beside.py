"""PostgreSQL by TLS in the process that runs networks with TensorFlow."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A server that agrees to TLS and then goes away: psycopg comes as far as its TLS library.
_ASKS = """
import socket, sys, threading
server = socket.create_server(("127.0.0.1", 0))
url = f"postgresql://node@127.0.0.1:{server.getsockname()[1]}/node?sslmode=require"
def agree():
    connection, _ = server.accept()
    connection.recv(8)
    connection.sendall(b"S")
    connection.recv(100)
    connection.close()
threading.Thread(target=agree, daemon=True).start()
from db.engine import connect
engine = connect(url)
import tensorflow
try:
    engine.connect()
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.training  # for TensorFlow, which takes seconds to import
def test_an_engine_that_was_made_before_tensorflow_is_loaded_connects_by_tls() -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is missing: pip install '.[train]'")
    done = subprocess.run([sys.executable, "-P", "-c", _ASKS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["OperationalError"]), done.stderr[-2000:]
