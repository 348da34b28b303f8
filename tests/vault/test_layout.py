"""Names of objects: one form each, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rozenfmt.errors import UsageError
from rozenfmt.vault import layout
from rozenfmt.vault.layout import DataName, MetaName

IDS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(1, 2**64 - 1)
HOST, ARCHIVE = bytes(range(16)), bytes(range(240, 256))
HOST_HEX, ARCHIVE_HEX = HOST.hex(), ARCHIVE.hex()

NAMES = [
    "editions/00000001-0011223344556677",
    f"meta/{HOST_HEX}/0000000012-{ARCHIVE_HEX}.rzn",
    f"data/{HOST_HEX}/{ARCHIVE_HEX}.rzn",
    f"arena/{HOST_HEX}/{ARCHIVE_HEX}.rzn",
    f"gone/{HOST_HEX}/{ARCHIVE_HEX}",
]


def parsed(name: str) -> list[object]:
    return [
        parse(name)
        for parse in (
            layout.parse_edition_name,
            layout.parse_meta_name,
            layout.parse_data_name,
            layout.parse_gone_name,
        )
    ]


def spelled(name: str) -> str | None:
    """The name again, from what it was read as."""
    edition, meta, data, gone = parsed(name)
    match edition, meta, data, gone:
        case (int(number), bytes(salt)), None, None, None:
            return layout.edition_name(number, salt)
        case None, MetaName(host, sequence, archive), None, None:
            return layout.meta_name(host, sequence, archive)
        case None, None, DataName(host, archive, arena), None:
            return layout.data_name(host, archive, arena=arena)
        case None, None, None, (bytes(host), bytes(archive)):
            return layout.gone_name(host, archive)
        case None, None, None, None:
            return None
    raise AssertionError


def test_the_names_are_those_of_the_specification() -> None:
    assert [
        layout.edition_name(1, bytes.fromhex("0011223344556677")),
        layout.meta_name(HOST, 12, ARCHIVE),
        layout.data_name(HOST, ARCHIVE, arena=False),
        layout.data_name(HOST, ARCHIVE, arena=True),
        layout.gone_name(HOST, ARCHIVE),
    ] == NAMES
    assert layout.edition_name(123_456_789, bytes(8)) == "editions/123456789-0000000000000000"
    assert layout.meta_name(HOST, 10**11, ARCHIVE) == f"meta/{HOST_HEX}/100000000000-{ARCHIVE_HEX}.rzn"
    folders = (layout.EDITIONS, layout.META, layout.DATA, layout.ARENA, layout.GONE)
    assert [name.startswith(folder) for name, folder in zip(NAMES, folders, strict=True)] == [True] * 5


@given(NUMBERS, st.binary(min_size=8, max_size=8), IDS, IDS, st.booleans())
def test_names_come_back(number: int, salt: bytes, host: bytes, archive: bytes, arena: bool) -> None:
    assert layout.parse_edition_name(layout.edition_name(number, salt)) == (number, salt)
    assert layout.parse_meta_name(layout.meta_name(host, number, archive)) == MetaName(host, number, archive)
    assert layout.parse_data_name(layout.data_name(host, archive, arena=arena)) == DataName(host, archive, arena)
    assert layout.parse_gone_name(layout.gone_name(host, archive)) == (host, archive)


@given(st.sampled_from(NAMES), st.data())
def test_a_name_with_one_other_character_is_itself_or_nothing(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    other = data.draw(st.one_of(st.sampled_from("0123456789abcdefABCDEF/-.\n\u0663"), st.characters(), st.just("")))
    changed = name[:at] + other + name[at + 1 :]
    assert spelled(changed) in (changed, None)


@given(st.text())
@example("")
def test_other_texts_are_no_names(name: str) -> None:
    assert parsed(name) == [None] * 4


@pytest.mark.parametrize(
    "name",
    [
        "editions/1-0011223344556677",
        "editions/00000000-0011223344556677",
        "editions/000000001-0011223344556677",
        "editions/00000001-001122334455667G",
        "editions/00000001-001122334455667",
        "editions/00000001-00112233445566AA",
        "editions/00000001-0011223344556677\n",
        "editions/00000001-0011223344556677.tmp",
        "editions/0000000\u0661-0011223344556677",
        "editions/18446744073709551616-0011223344556677",
        f"editions/{'9' * 10_000}-0011223344556677",
        f"meta/{HOST_HEX}/0000000000-{ARCHIVE_HEX}.rzn",
        f"meta/{HOST_HEX}/00000000012-{ARCHIVE_HEX}.rzn",
        f"meta/{HOST_HEX}/12-{ARCHIVE_HEX}.rzn",
        f"meta/{HOST_HEX}/0000000012-{ARCHIVE_HEX}",
        f"meta/{HOST_HEX.upper()}/0000000012-{ARCHIVE_HEX}.rzn",
        f"data/{HOST_HEX}/{ARCHIVE_HEX}",
        f"data/{HOST_HEX}/x/{ARCHIVE_HEX}.rzn",
        f"data//{HOST_HEX}/{ARCHIVE_HEX}.rzn",
        f"/data/{HOST_HEX}/{ARCHIVE_HEX}.rzn",
        f"gone/{HOST_HEX}/{ARCHIVE_HEX}.rzn",
    ],
)
def test_forms_that_are_not_canonical(name: str) -> None:
    assert parsed(name) == [None] * 4


def test_names_of_impossible_things_are_not_made() -> None:
    for number in (0, -1, 2**64):
        with pytest.raises(UsageError):
            layout.edition_name(number, bytes(8))
        with pytest.raises(UsageError):
            layout.meta_name(HOST, number, ARCHIVE)
    for wrong in (b"", bytes(15), bytes(17)):
        with pytest.raises(UsageError):
            layout.edition_name(1, wrong)
        with pytest.raises(UsageError):
            layout.meta_name(wrong, 1, ARCHIVE)
        with pytest.raises(UsageError):
            layout.data_name(HOST, wrong, arena=True)
        with pytest.raises(UsageError):
            layout.gone_name(HOST, wrong)
