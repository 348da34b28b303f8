"""Names, sizes and numbers as a person may see them.

Names in an archive are whatever somebody put there: no control character, no direction override
and no byte that is not UTF-8 is shown as it is.
"""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["count", "safe", "size"]

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Joiners change how letters and emoji combine, nothing else; the other format characters can
# make a name look like another one.
_HARMLESS: Final = frozenset("\u200c\u200d")
_ESCAPED: Final = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp"})


def safe(value: str | bytes, *, backslash: bool = True) -> str:
    """Text that cannot move the cursor or look like something else.

    Args:
        value: A name; text may hold surrogate escapes.
        backslash: Double backslashes, so that what is printed names one thing only.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape(char, backslash=backslash) for char in text)


def _escape(char: str, *, backslash: bool) -> str:
    if char == "\\":
        return "\\\\" if backslash else char
    if char in _HARMLESS or unicodedata.category(char) not in _ESCAPED:
        return char
    number = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def size(number: float) -> str:
    """Bytes in human units."""
    if number < 1024:
        return f"{number:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} PiB"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
