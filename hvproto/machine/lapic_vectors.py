"""The vectors that a local APIC holds and their priorities (Intel SDM vol. 3, 10.8).

The class of vector v is ``v >> 4``. IRR, ISR and TMR are integers here; bit v belongs to vector v.
"""

from __future__ import annotations

CLASS = 0xF0


class Vectors:
    """Requested (IRR), in service (ISR), level triggered (TMR), and the task's priority (TPR)."""

    def __init__(self) -> None:
        self.requested = self.in_service = self.level_triggered = 0
        self.task_priority = 0

    def request(self, vector: int, level: bool) -> None:
        """An interrupt arrives; TMR remembers how the latest one of its vector was triggered."""
        bit = 1 << vector
        self.requested |= bit
        self.level_triggered = self.level_triggered | bit if level else self.level_triggered & ~bit

    def next(self) -> int | None:
        """The highest requested vector if its class exceeds that of PPR, else None."""
        vector = _highest(self.requested)
        return vector if vector & CLASS > self.processor_priority & CLASS else None

    def take(self, vector: int) -> None:
        """From requested to in service."""
        self.requested &= ~(1 << vector)
        self.in_service |= 1 << vector

    def end(self) -> tuple[int, bool] | None:
        """End the most urgent service: its vector, and whether it was level triggered; None if none is in service."""
        if not self.in_service:
            return None
        vector = _highest(self.in_service)
        self.in_service &= ~(1 << vector)
        return vector, bool(self.level_triggered >> vector & 1)

    @property
    def processor_priority(self) -> int:
        """PPR: that of the task, or the class of what is in service if that is greater."""
        serving = _highest(self.in_service) & CLASS
        return self.task_priority if self.task_priority & CLASS >= serving else serving

    @property
    def arbitration_priority(self) -> int:
        """APR: like PPR, but what is only requested counts as well."""
        busy = max(_highest(self.requested), _highest(self.in_service)) & CLASS
        return self.task_priority if self.task_priority & CLASS >= busy else busy


def _highest(bits: int) -> int:
    """The vector of the highest bit, 0 if there is none: class 0 exceeds nothing."""
    return max(bits.bit_length() - 1, 0)
