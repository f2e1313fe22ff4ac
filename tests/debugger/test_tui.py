"""The full-screen debugger: what a person sees and does, on real kernels."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("textual", reason="the full-screen debugger needs Textual: pip install 'hvproto[tui]'")

from hvproto.debugger.inspect import address_space, registers, settings
from hvproto.debugger.position import START, Position
from hvproto.debugger.repl.console import Console
from hvproto.debugger.session import DebugSession
from hvproto.debugger.tui.command_line import CommandLine
from hvproto.debugger.tui.keys import KEYS, LOWER, PANES
from hvproto.errors import World
from hvproto.processor.settings import Setting
from tests.debugger.runs import bundled, fingerprint, kernel, session
from tests.debugger.screens import Screen, on_screen
from tests.support.command import hvproto

SMALL, LARGE = (80, 24), (120, 40)
MOVED = ["break Relocated", "continue", "delete"]
"""To the first move of the region."""

COUNTS = """
start:
    mov esp, 0x9000
    xor eax, eax
    mov ecx, 5
again:
    call increment
    loop again
    lidt [0x6000]
    hlt
increment:
    inc eax
    ret
"""


# -- what is shown -------------------------------------------------------------------------------


def test_the_banner_says_whose_processor_it_is_and_at_which_step_of_a_switch() -> None:
    async def scenario(screen: Screen) -> None:
        assert screen.lines[0].startswith(" ■ HOST  has the processor")
        await screen.press("s")
        assert screen.lines[0].startswith(" ◆ HYPERVISOR  has the processor")
        assert " ▶26 save " in screen.lines[1] and "28 replace" in screen.lines[1] and "▶28" not in screen.lines[1]
        await screen.type("break SettingReplaced")
        await screen.press("c")
        assert " ▶28 replace " in screen.lines[1]
        assert "SettingReplaced setting" in screen.lines[1]
        await screen.type("delete")
        await screen.press("w", "e")
        await screen.type("step")
        assert screen.session.stop.world is World.GUEST
        assert screen.lines[0].startswith(" ● GUEST  has the processor")
        assert "host at 0x" in screen.lines[1] and "state saved" in screen.lines[1]

    on_screen(scenario, session())


def test_panes_show_what_the_run_is() -> None:
    async def scenario(screen: Screen) -> None:
        debug = screen.session
        stop = debug.stop
        assert any(line.startswith(f"▶ {stop.address:08x}") for line in screen.pane("code"))
        file = debug.call(registers.register_file, World.HYPERVISOR)
        shown = " ".join(screen.pane("registers"))
        assert all(re.search(rf"{name} +{value}", shown) for name, value in file.wide.items())
        for row, line in zip(debug.call(settings.setting_rows), screen.pane("settings")[1:], strict=True):
            assert line.startswith(row.name) and row.hosts in line
            assert ("≠" in line and row.loaded in line) == row.differs
        region = debug.call(address_space.mapped).region
        space = "\n".join(screen.pane("map"))
        assert f"region {region.base:#x}" in space
        assert f"before {region.before:#x}" in space
        assert "the guest's, CR3" in "\n".join(screen.pane("walk"))
        assert any(line.startswith("▶") and " 46 Relocated" in line for line in screen.pane("timeline"))
        await screen.press("7", "z")
        assert "● guest │ guest: hello, I am a kernel and this is my machine" in await _everything(screen, "console")
        assert "■ host  │ host: up" in await _everything(screen, "console")

    on_screen(scenario, session(), size=LARGE, script=MOVED)


async def _everything(screen: Screen, pane: str) -> str:
    """All that a pane has, page by page."""
    await screen.press("home")
    pages = [screen.pane(pane)]
    while True:
        await screen.press("pagedown")
        if screen.pane(pane) == pages[-1]:
            return "\n".join(line for page in pages for line in page)
        pages.append(screen.pane(pane))


@pytest.mark.parametrize("size", [SMALL, (200, 24), LARGE])
def test_everything_is_within_reach_at_each_size(size: tuple[int, int]) -> None:
    async def scenario(screen: Screen) -> None:
        for key, name in PANES:
            await screen.press(key)
            assert screen.app.focused is screen.app.query_one(f"#{name}")
            assert len([line for line in screen.pane(name) if line]) >= (3 if size[1] < 30 else 4), name
            assert any(f"━ {key} {name} ━" in line for line in screen.lines), "a heavy border says who has the keys"
        assert len(screen.lines) == size[1]
        footer = screen.lines[-1]
        assert all(key.short in footer for key in KEYS if key.short)
        assert ": to type a command" in screen.lines[-2]
        visible = [name for name in LOWER if screen.app.query_one(f"#{name}").display]
        assert visible == (list(LOWER) if size[0] >= 110 and size[1] >= 38 else ["console"])

    on_screen(scenario, session(), size=size, script=["step setting 12"])


def test_the_window_changes_its_size() -> None:
    async def scenario(screen: Screen) -> None:
        small = screen.picture()
        await screen.pilot.resize_terminal(*LARGE)
        await screen.idle()
        assert len(screen.lines) == LARGE[1]
        assert any(line.startswith("CR3") for line in screen.pane("settings"))
        for size in ((40, 12), (1, 1), SMALL):
            await screen.pilot.resize_terminal(*size)
            await screen.idle()
        assert screen.picture() == small
        await screen.press("z")
        assert len(screen.pane("timeline")) == SMALL[1] - 7  # banner, border, pane bar, command line and footer
        await screen.press("z")
        assert screen.picture() == small

    on_screen(scenario, session(), script=["step setting"])


def test_changed_registers_and_settings_have_a_mark() -> None:
    async def scenario(screen: Screen) -> None:
        await screen.type("until increment")
        await screen.press("right")
        assert [line for line in screen.pane("registers") if "eax 00000001*" in line]
        assert "ecx 00000005" in screen.pane("registers")[0] and "ecx 00000005*" not in screen.pane("registers")[0]
        await screen.type("watch IDTR")
        await screen.press("c", "4")
        marked = [line for line in screen.pane("settings") if "*" in line]
        assert len(marked) == 1 and marked[0].startswith("IDTR*")
        await screen.press("right")
        assert screen.lines[0].startswith(" ● GUEST") and "Shutdown" in screen.lines[1], "there is no hypervisor here"
        await screen.press("right", "3")
        assert "THE END" in screen.text and "has ended" in screen.lines[0]

    on_screen(scenario, kernel(COUNTS), script=["print eax"])


def test_the_registers_of_every_world() -> None:
    async def scenario(screen: Screen) -> None:
        seen = []
        for _ in range(4):
            seen.append("\n".join(screen.lines))
            await screen.press("r")
        for text, world in zip(seen, ("hypervisor, on", "host, saved", "hypervisor, on", "guest"), strict=True):
            assert world in text

    on_screen(scenario, session(), size=LARGE, script=["step switch", "step exit"])


def test_the_walk_of_an_address_stays_that_of_the_address() -> None:
    async def scenario(screen: Screen) -> None:
        await screen.type("pt 0xfffff000")
        await screen.press("6")
        assert screen.pane("walk")[0] == "0xfffff000"
        await screen.press("left")
        assert screen.pane("walk")[0] == "0xfffff000"
        await screen.press("p")
        assert isinstance(screen.app.focused, CommandLine) and screen.app.focused.value == "pt "
        await screen.pilot.press(*"eip")
        await screen.press("enter", "escape", "6")
        assert int(screen.pane("walk")[0], 0) == screen.session.evaluate("eip")

    on_screen(scenario, session(), script=["step switch", "step exit"])


# -- time ----------------------------------------------------------------------------------------


def test_arrow_keys_travel_in_time_and_every_moment_is_what_it_was() -> None:
    async def scenario(screen: Screen) -> None:
        def state() -> tuple[Position, object, list[str]]:
            return screen.session.position, screen.session.call(fingerprint), screen.pane("code")

        await screen.press("s", "left", "left", "left")
        trail = [state()]
        for _ in range(5):
            await screen.press("right")
            trail.append(state())
        assert len({position for position, *_ in trail}) == 6
        assert any(position.in_event for position, *_ in trail)
        for _ in range(2):
            for position, print_, _ in reversed(trail[:-1]):
                await screen.press("left")
                assert state()[:2] == (position, print_)
            for position, print_, _ in trail[1:]:
                await screen.press("right")
                assert state()[:2] == (position, print_)
        here = screen.session.position
        await screen.press("right_square_bracket", "right_square_bracket", "left_square_bracket")
        assert screen.session.position.events == here.events + 1
        await screen.press("left_square_bracket")
        assert screen.session.position == trail[-1][0] or screen.session.position.events == here.events

    on_screen(scenario, session())


def test_one_jumps_in_the_timeline_by_keys_and_by_mouse() -> None:
    async def scenario(screen: Screen) -> None:
        await screen.type("step event 6")
        await screen.press("3")
        last = screen.session.position
        assert screen.pane("timeline")[6].startswith("▶")
        await screen.press("up", "up", "enter")
        assert screen.session.position.events == last.events - 2
        marks = [line[0] for line in screen.pane("timeline") if line]
        assert marks == list("│││││▶○○")[-len(marks) :]
        assert "2 known ahead" in screen.text
        await screen.pilot.click("#timeline", offset=(20, 1 + marks.index("▶") + 2))
        await screen.idle()
        assert screen.session.position == last
        await screen.press("home", "enter")
        assert screen.session.position == START
        assert screen.lines[0].startswith(" ■ HOST")
        await screen.press("right")
        between = screen.pane("timeline")
        assert between[0].startswith("│") and between[1].startswith("▶") and "■ HOST at 0x" in between[1]
        assert between[2].startswith("○") and "SettingSaved" in between[2]

    on_screen(scenario, session(), size=LARGE)


def test_the_mouse_chooses_panes_and_presses_keys() -> None:
    async def scenario(screen: Screen) -> None:
        x = screen.lines[-3].index("4 settings")
        await screen.pilot.click("#pane-bar", offset=(x, 0))
        await screen.idle()
        assert "[4 settings]" in screen.text
        assert screen.pane("settings")[1].startswith("IDTR")
        x = screen.lines[-1].index("→")
        await screen.pilot.click("#key-bar", offset=(x, 0))
        await screen.idle()
        assert screen.session.position == Position(0, 0, 1)

    on_screen(scenario, session())


# -- the command line ----------------------------------------------------------------------------


def test_the_command_line_answers_as_the_prompt_does() -> None:
    lines = (
        "settings",
        "map",
        "step 3",
        "regs",
        "disas eip 4",
        "help break",
        "breakpoints",
        "diff nothing",
        "nonsense",
        "",
    )
    with DebugSession(session()) as debug:
        console = Console(debug)
        answers = []
        for line in lines:
            try:
                answers.append(console.execute(line))
            except Exception as error:
                answers.append(str(error))

    async def scenario(screen: Screen) -> None:
        for line in lines:
            await screen.type(line)
        await screen.press("7", "z")
        shown = await _everything(screen, "console")
        for answer in answers:
            for part in answer.splitlines():
                assert part.rstrip() in shown
        assert "! there is no command 'nonsense'" in shown

    on_screen(scenario, session(), size=(260, 60))


def test_completion_and_history_of_the_command_line() -> None:
    async def scenario(screen: Screen) -> None:
        line = screen.app.query_one(CommandLine)
        await screen.pilot.press(":", *"bre", "tab")
        assert line.value == "break"
        line.value = "break Shut"
        await screen.press("end", "tab", "enter")
        assert "event Shutdown" in screen.text
        await screen.press("up")
        assert line.value == "break Shutdown"
        await screen.press("down")
        assert line.value == ""
        await screen.pilot.press("q", "left", "escape")
        await screen.idle()
        assert screen.session.position == START, "while one types, keys are letters"

    on_screen(scenario, kernel(COUNTS))


def test_quit_is_a_command_and_a_key() -> None:
    async def types(screen: Screen) -> None:
        await screen.pilot.press("colon", *"quit", "enter")
        await screen.until(lambda: not screen.app.is_running)

    async def presses(screen: Screen) -> None:
        screen.app.simulate_key("q")
        await screen.until(lambda: not screen.app.is_running)

    for scenario in (types, presses):
        assert on_screen(scenario, kernel(COUNTS)).return_code == 0


def test_the_list_of_keys_has_them_all() -> None:
    async def scenario(screen: Screen) -> None:
        await screen.press("question_mark")
        for key in KEYS:
            assert key.help in screen.text
        await screen.press("escape")
        assert "keys and marks" not in screen.text

    on_screen(scenario, kernel(COUNTS), size=(120, 60))


# -- long runs -----------------------------------------------------------------------------------


def test_ctrl_c_stops_a_run_that_would_not_end_and_then_quits() -> None:
    async def scenario(screen: Screen) -> None:
        screen.app.simulate_key("c")
        await screen.until(lambda: "continue: " in screen.lines[0] and "Ctrl-C" in screen.lines[0])
        screen.app.simulate_key("2")  # the interface isn't frozen
        await screen.until(lambda: screen.app.focused is screen.app.registers)
        await screen.press("ctrl+c")
        assert screen.session.stop.kind == "interrupted"
        assert "interrupted" in screen.lines[1]
        far = screen.session.position
        await screen.press("left")
        assert screen.session.position < far
        await screen.press("right")
        assert screen.session.position == far
        await screen.press("ctrl+c")
        assert screen.app.is_running
        screen.app.simulate_key("ctrl+c")
        await screen.until(lambda: not screen.app.is_running)

    on_screen(scenario, session_of_forever())


def test_one_quits_in_the_middle_of_a_run() -> None:
    async def scenario(screen: Screen) -> None:
        screen.app.simulate_key("c")
        await screen.until(lambda: "continue: " in screen.lines[0])
        screen.app.simulate_key("q")

    on_screen(scenario, session_of_forever())


def session_of_forever() -> object:
    from hvproto.debugger.subjects import machine_subject

    return machine_subject(bundled("forever"))


# -- without colours, without Textual ------------------------------------------------------------


def test_two_runs_give_the_same_pictures() -> None:
    pictures: list[str] = []

    async def scenario(screen: Screen) -> None:
        await screen.press("s", "left", "right")
        pictures.append(screen.picture())

    for _ in range(2):
        on_screen(scenario, session(), size=LARGE)
    assert pictures[0] == pictures[1]


def test_what_is_current_or_differs_is_bold() -> None:
    async def scenario(screen: Screen) -> None:
        bold = {html.unescape(text).strip("\xa0") for text in screen.styled("bold")}
        assert any(each.startswith("▶") and f"{screen.session.stop.address:08x}" in each for each in bold)
        differing = [row.name for row in screen.session.call(settings.setting_rows) if row.differs]
        assert differing
        for name in (setting.name for setting in Setting):
            assert any(each.startswith(name) and "≠" in each for each in bold) == (name in differing)

    on_screen(scenario, session(), size=LARGE, script=["step setting 12"])


def test_no_color_is_honoured_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, set[str]]] = []

    async def scenario(screen: Screen) -> None:
        colours = set(re.findall(r"#[0-9a-f]{6}", screen.picture().split("</style>")[1]))
        colours |= set(re.findall(r"-r\d+ \{ fill: (#[0-9a-f]{6})", screen.picture()))
        seen.append((screen.text, {each for each in colours if len({each[1:3], each[3:5], each[5:7]}) > 1}))

    on_screen(scenario, session(), script=["step setting 12"])
    monkeypatch.setenv("NO_COLOR", "1")
    on_screen(scenario, session(), script=["step setting 12"])
    (text, coloured), (same, grey) = seen
    assert text == same
    assert len(coloured) > len(grey)
    assert grey <= {"#c5c8c6", "#ff5f57", "#febc2e", "#28c840", "#292929"}, "but for the picture's own frame"


@pytest.mark.parametrize("arguments", [("--tui", "--batch"), ("--tui",)])
def test_tui_is_refused_where_there_is_no_person(arguments: tuple[str, ...]) -> None:
    ended = hvproto("debug", *arguments)
    assert ended.status == 2
    assert ended.stderr.startswith("hvproto: --tui ")


def test_without_textual_one_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hvproto.cli.main import main

    monkeypatch.setitem(sys.modules, "textual", None)  # what the import system itself takes for "isn't there"
    monkeypatch.setattr(sys, "argv", ["hvproto", "debug", "--tui"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "hvproto: --tui needs Textual: pip install 'hvproto[tui]'\n"


@pytest.fixture(autouse=True)
def _own_colours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield
