"""`zkinferd` as a process, and a proxy that cuts connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

START_SECONDS = 60
STOP_SECONDS = 30


def zkinferd(*arguments: str) -> str:
    """Runs a command of the daemon that ends by itself; answers what it printed."""
    command = [os.environ["ZKINFERD"], *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_SECONDS).stdout


class Daemon:
    """`zkinferd serve` in a folder, on a free port of the loopback interface. Ended with the block."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        # Where the bytes of uploads are until they are complete.
        self.uploads = folder / "data" / "uploads"
        address_file = folder / "address"
        self._log = (folder / "log").open("w")
        folders = ["--data-dir", str(folder / "data"), "--cache-dir", os.environ["ZKINFER_TEST_CACHE"]]
        listen = ["--listen", "127.0.0.1:0", "--address-file", str(address_file), "--device", "cpu", "--drain-seconds", "0"]
        command = [os.environ["ZKINFERD"], "serve", *listen, *folders, *options]
        self._process = subprocess.Popen(command, stderr=self._log, stdout=self._log)
        try:
            self.host, port = self._read(address_file).rsplit(":", 1)
        except BaseException:
            self._process.kill()
            raise
        self.port = int(port)
        scheme = "https" if "--tls-cert" in options else "http"
        self.address = f"{scheme}://{self.host}:{port}"

    def _read(self, address_file: Path) -> str:
        end = time.monotonic() + START_SECONDS
        while not address_file.exists():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < end, "zkinferd does not listen"
            time.sleep(0.02)
        return address_file.read_text()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Proxy:
    """Passes bytes to a port of this machine, until its connections are cut; new ones pass again."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: list[socket.socket] = []
        self.n_accepted = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._pairs += [near, far]
                    self.n_accepted += 1
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Cuts what is connected."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for end in pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Stops listening."""
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
