"""What a report cannot show, and why."""

from __future__ import annotations


class Missing:
    """What the page cannot show, each reason once: {"part", "reason"}."""

    def __init__(self, lines: list[dict[str, str]] | None = None) -> None:
        self.lines = [] if lines is None else lines

    def add(self, part: str, reason: str) -> None:
        line = {"part": part, "reason": reason}
        if line not in self.lines:
            self.lines.append(line)
