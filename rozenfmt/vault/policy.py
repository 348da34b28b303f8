"""What is done about contents that changed in a write-once set: a word for all, or somebody who is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from rozenfmt.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from .results import Conflict, OnConflict

__all__ = ["ANSWERS", "Policy"]

ANSWERS: Final = ("restore", "accept", "keep-both", "skip", "fail")


class Policy:
    """Answers conflicts.

    Args:
        on_conflict: One of ``ANSWERS``, a callable that gives one, or None: withhold.
        can_restore: Whether ``restore`` is possible.
    """

    def __init__(self, on_conflict: OnConflict | None, *, can_restore: bool) -> None:
        self._on_conflict = on_conflict
        self._can_restore = can_restore

    def answer(self, conflict: Conflict) -> str:
        """What to do about one conflict; noted in it.

        Raises:
            UsageError: It is no answer.
            ConflictError: The answer is ``fail``, or is ``restore`` and no key that reads is at hand or the file
                is not on this machine.
        """
        policy = self._on_conflict
        if policy is None:
            return "withhold"
        answer = policy if isinstance(policy, str) else policy(conflict)
        if answer not in ANSWERS:
            msg = f"{answer!r} is no answer to a conflict: restore, accept, keep-both, skip or fail"
            raise UsageError(msg)
        if answer == "fail":
            where = os.fsdecode(conflict.path)
            msg = f"{where!r} has another content now, and the set is write-once; nothing was stored"
            raise ConflictError(msg)
        if answer == "restore" and not self._can_restore:
            msg = "restoring takes a key that reads; give an identity, or choose another answer"
            raise ConflictError(msg)
        if answer == "restore" and not conflict.can_restore:
            where = os.fsdecode(conflict.path)
            msg = f"{where!r} is not on this machine, and nothing is written to a remote source: choose another answer"
            raise ConflictError(msg)
        if conflict.for_all:
            self._on_conflict = answer
        conflict.answer = answer
        return answer
