"""Debian's gdb, driven by its machine interface."""

from __future__ import annotations

import re
import shutil

import pytest

pygdbmi = pytest.importorskip("pygdbmi.gdbcontroller")
needed = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb isn't installed")


class Gdb:
    """A gdb; `do` gives the lines that it prints for a command. ``before`` are commands before it connects."""

    def __init__(self, port: int, *before: str) -> None:
        self._gdb = pygdbmi.GdbController(
            ["gdb", "-nx", "-q", "--interpreter=mi3"], time_to_check_for_additional_output_sec=0.02
        )
        for line in ("set confirm off", "set pagination off", *before, f"target remote 127.0.0.1:{port}"):
            self.do(line)

    def do(self, line: str, *, until: str = "") -> str:
        """All that gdb says until it has done a command, or until it says so much."""
        text, answers = "", self._gdb.write(line, timeout_sec=30)
        running = answered = False
        for _ in range(60):
            for each in answers:
                answered |= each["type"] == "result"
                text += f"{each['payload']}" if each["type"] in ("console", "target", "log", "output") else ""
                if each["type"] == "result" and each["message"] == "error":
                    text += str(each["payload"]["msg"])
                running |= each["type"] == "result" and each["message"] == "running"
                if each["type"] == "notify" and each["message"] == "stopped":
                    running = False
                    text += str(each["payload"])
            if answered and not running and until in text:
                return text
            answers = self._gdb.get_gdb_response(timeout_sec=1, raise_error_on_timeout=False)
        raise AssertionError(f"{line}: {text}")

    def value(self, expression: str) -> int:
        return int(re.search(r"= (-?\w+)", self.do(f"print/x {expression}"))[1], 16)  # type: ignore[index]

    def close(self) -> None:
        self._gdb.exit()
