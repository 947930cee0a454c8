"""Servers on the loopback interface that behave badly, alone or in front of a real MLflow server."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(answer):
    """Run a server that calls ``answer(handler)`` for each request; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

    def handle(handler):
        with contextlib.suppress(OSError):
            answer(handler)

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", handle)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients that give up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def too_many_requests(handler):
    """Answer 429, and ask to come back in an hour."""
    handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    handler.send_response(429)
    handler.send_header("Retry-After", "3600")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def hang_up(handler):
    """Close the connection instead of an answer."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def trickle(handler):
    """Send an answer that never ends, byte by byte, so that no time limit of a read is reached."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(600):
        handler.wfile.write(b"x")
        time.sleep(0.1)


class LossyProxy:
    """Forwards requests to a server, and closes the connection instead of an answer to some of them.

    Args:
        target: Address of the server.
        share: Share of the requests that are lost.
        seed: Of the random numbers that choose them.
        lose: Which request is lost beside these: a function of method, path and number of the request.
        delay: Seconds before each answer.
    """

    def __init__(self, target, share=0.0, seed=0, lose=lambda *_: False, delay=0.0):
        self.target, self.share, self.lose, self.delay = target, share, lose, delay
        self.random = random.Random(seed)
        self.requests = self.lost = 0

    def __call__(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")}
        self.requests += 1
        lost = self.random.random() < self.share or self.lose(handler.command, handler.path, self.requests)
        answer = requests.request(
            handler.command, self.target + handler.path, data=body, headers=headers, timeout=60, allow_redirects=False
        )
        time.sleep(self.delay)
        if lost:
            self.lost += 1
            hang_up(handler)
            return
        handler.send_response(answer.status_code)
        for name in ("Content-Type", "Location"):
            if name in answer.headers:
                handler.send_header(name, answer.headers[name])
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        handler.wfile.write(answer.content)


def answers(uri):
    """Return whether an MLflow server is ready."""
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{uri}/health", timeout=1).ok
    return False


class MlflowServer:
    """A real MLflow server in a process group of its own.

    Args:
        folder: Where its artifacts are, and its SQLite store.
        backend: Address of its store; None for the SQLite file server.db.
    """

    def __init__(self, folder, backend=None):
        self.folder = folder
        self.backend = backend or f"sqlite:///{folder}/server.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = ["-m", "mlflow", "server", "--backend-store-uri", self.backend, "--host", "127.0.0.1"]
        command += ["--artifacts-destination", str(self.folder / "served"), "--port", str(self.port), "--workers", "1"]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **quiet},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if answers(self.uri):
                return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError("the MLflow server did not start")

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
