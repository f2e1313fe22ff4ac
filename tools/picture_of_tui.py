"""The picture of the full-screen debugger in docs/: python tools/picture_of_tui.py docs/debugger-tui.svg

A run of the bundled kernels at the first move of the region, one event back.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hvproto.bundled import DEFAULT_GUEST, DEFAULT_HOST
from hvproto.cli.stepping import make_build
from hvproto.debugger.session import DebugSession
from hvproto.debugger.tui.app import DebugApp
from hvproto.debugger.tui.operator import Operator, Output

SCRIPT = ["break Relocated", "continue", "back"]


async def picture(app: DebugApp) -> str:
    async with app.run_test(size=(120, 40)) as pilot:
        while app.is_busy:
            await pilot.pause(0.05)
        await pilot.pause(0.5)
        return app.export_screenshot(title="hvproto debug --tui")


def main() -> None:
    build = make_build(DEFAULT_HOST, DEFAULT_GUEST, "mirrored", None, None, None, None, None)
    output = Output()
    with DebugSession(build, output) as session:
        operator = Operator(session, output)
        try:
            Path(sys.argv[1]).write_text(asyncio.run(picture(DebugApp(operator, SCRIPT))), encoding="utf-8")
        finally:
            operator.close()


if __name__ == "__main__":
    main()
