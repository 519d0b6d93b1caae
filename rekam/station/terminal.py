"""The terminal: what the session wants, live quality, what became of it, and the operator's answers."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.prompt import Confirm, Prompt
from rich.table import Table
from rich.text import Text

from capture.quality import Feedback, Quality
from devices.device import DeviceInfo
from devices.frame import Frame
from rekam.exchange import MissingReason
from rekam.session import Place, Result, Session, Step, Verdict, places
from rekam.station.attendance import Choice, Decision

_BAR = 30
_BACK = "Enter alone goes back"
_KEYS = {"p": Choice.POOR, "m": Choice.MISSING, "d": Choice.DISCARD, "q": Choice.STOP}
_WORDS = {"p": "take it poor", "m": "declare missing", "d": "discard what was taken", "q": "stop"}


class Terminal:
    """The `rekam.station.attendance.Operator` at a terminal.

    Without one (`unattended`: no keyboard) it captures again `patience` times, then stops: nothing is taken
    poor, and nothing declared missing, by a program.
    """

    def __init__(self, console: Console, *, unattended: bool | None = None, patience: int = 6) -> None:
        self._console = console
        self._unattended = not sys.stdin.isatty() if unattended is None else unattended
        self._patience = patience
        self._failures = 0
        self._live: Live | None = None

    def begins(self, session: Session, step: Step, device: DeviceInfo) -> None:
        """Say which device is asked for what."""
        asked = places(device.kind, session.spec(device).positions)
        wanted = ", ".join(place.words for place in asked)
        of = device.provenance
        name = " ".join(filter(None, (of.maker, of.model))) or device.id
        self._say(f"[bold]{step.name}[/] ({wanted}) on {escape(name)}")

    def live(self, frame: Frame, quality: Quality, advice: tuple[Feedback, ...]) -> None:
        """A bar and the first advice, in place. No number: the result is judged by more than a frame is."""
        if not self._console.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        full = round(_BAR * quality.score / 100)
        bar = Text("█" * full, "green" if quality.usable else "red") + Text("░" * (_BAR - full), "dim")
        words = advice[0].advice if advice else "Hold still."
        self._live.update(bar + Text(f"  {words}"), refresh=True)

    def result(self, session: Session, result: Result) -> None:
        """What became of a capture, line by line."""
        self._end_live()
        if result.verdict is Verdict.ACCEPTED:
            self._failures = 0
            scores = ", ".join(f"{one.place.words} {one.quality.score}" for one in result.seen)
            self._say(f"  [green]taken[/]: {scores}")
            return
        for line in result.advice:
            self._say(f"  [yellow]{result.verdict.value.replace('_', ' ')}[/]: {escape(line)}")
        if result.verdict is Verdict.AGAIN and result.seen and all(one.quality.usable for one in result.seen):
            self._say("  It can be used as it is; the best of several is taken.")

    def decide(self, session: Session, step: Step | None, result: Result | None) -> Decision:
        """Ask the operator; without one, again and again, and then stop. The end of the input is a stop."""
        try:
            while (decision := self._decided(session, step, result)) is None:
                pass  # the operator went back
            return decision
        except EOFError:
            return Decision(Choice.STOP)

    def _decided(self, session: Session, step: Step | None, result: Result | None) -> Decision | None:
        self._end_live()
        if step is None:
            self._console.print(summary(session))
        if self._unattended:
            self._failures += result is not None
            return Decision(Choice.AGAIN if self._failures < self._patience else Choice.STOP)
        here = () if step is None else session.open_places(step)
        had = (*session.taken, *session.missing)
        keys = "p" * (result is not None) + "m" * bool(here) + "d" * bool(had) + "q"
        if step is not None and result is None:
            self._say(f"next: [bold]{step.name}[/] ({', '.join(place.words for place in here)})")
        onward = "finish" if step is None else "capture" if result is None else "again"
        question = ", ".join((f"[Enter] {onward}", *(f"{key} {_WORDS[key]}" for key in keys)))
        choice = _KEYS.get(self._asked(question, [*keys]), Choice.AGAIN)
        if choice not in (Choice.MISSING, Choice.DISCARD):
            return Decision(choice)
        chosen = self._places(had if choice is Choice.DISCARD else here)
        if choice is Choice.DISCARD or not chosen:
            return Decision(choice, chosen) if chosen else None
        reasons = [reason.value for reason in MissingReason]
        why = self._asked(f"why: {', '.join(reasons)}; {_BACK}", reasons)
        return Decision(choice, chosen, MissingReason(why)) if why else None

    def _asked(self, question: str, choices: list[str]) -> str:
        """One of these, or nothing."""
        return Prompt.ask(
            escape(question),
            console=self._console,
            choices=["", *choices],
            show_choices=False,
            default="",
            show_default=False,
        )

    def confirms(self, question: str) -> bool:
        """The operator's yes or no; no without one, and at the end of the input."""
        try:
            return not self._unattended and Confirm.ask(question, console=self._console, default=False)
        except EOFError:
            return False

    def _places(self, among: tuple[Place, ...]) -> tuple[Place, ...]:
        """One or several of these, by their words or `all`; none where the operator goes back."""
        words = {place.words: place for place in among}
        question = f"which: {', '.join(words)}; several with commas, or all; {_BACK}"
        while True:
            said = Prompt.ask(question, console=self._console)
            if not said.strip():
                return ()
            chosen = set(words) if said == "all" else {part.strip() for part in said.split(",")}
            if chosen <= set(words):
                return tuple(words[name] for name in words if name in chosen)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_live()


def summary(session: Session) -> Table:
    """What a session has, place by place."""
    table = Table("what", "quality", "tries", "device")
    for step in session.steps:
        for place in step.places:
            taken, missing = session.taken.get(place), session.missing.get(place)
            if taken is not None:
                quality = f"{taken.quality}{' poor' if taken.poor else ''}"
                table.add_row(place.words, quality, str(taken.tries), escape(taken.device))
            else:
                table.add_row(place.words, "open" if missing is None else f"missing: {missing.value}", "", "")
    return table
