"""The decoder against archives that are cut, flipped, reordered, forged, or over a limit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import (
    ArchiveError,
    BlockError,
    HeaderError,
    IndexDamaged,
    KeyFailure,
    LimitError,
    SignatureError,
    TruncatedError,
    UnsupportedError,
    UsageError,
)
from rozenfmt.format import builders, cbor, crypto, nodes, records
from rozenfmt.format.blocks import Draft
from rozenfmt.format.crypto import Keys
from rozenfmt.format.decoder import BlockEvent, Decoder, EndEvent, HeaderEvent, parse_tail
from rozenfmt.format.frame import PREFIX_SIZE
from rozenfmt.format.header import build_header, parse_header, unlock
from rozenfmt.format.registry import FLAG_MAC, Kind, Suite
from rozenfmt.format.varint import encode_column

from .helpers import (
    SEED,
    STORED,
    Forge,
    Identity,
    Small,
    browse_keys,
    frame,
    frame_spans,
    make_header,
    make_keys,
    plain_header,
    read,
    released,
    small_archive,
    summary,
    tree_node,
    with_keys,
)

SUITES = list(Suite)
RIGHTS = ["read", "browse", "none"]
every_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
every_right = pytest.mark.parametrize("right", RIGHTS)


def keys_of(small: Small, right: str) -> Keys | None:
    """Keys that go with a right."""
    return {"read": small.keys, "browse": browse_keys(small.keys), "none": None}[right]


def tiny(suite: Suite) -> Small:
    """The archive without unknowns: fewer bytes to flip."""
    return small_archive(suite, grease=False)


@every_suite
@every_right
def test_whole(suite: Suite, right: str) -> None:
    small = small_archive(suite)
    events, error = read(small.data, with_keys(keys_of(small, right)))
    assert error is None
    assert isinstance(events[0], HeaderEvent)
    assert isinstance(events[-1], EndEvent)
    types = [event.block.type for event in events if isinstance(event, BlockEvent)]
    assert types == [
        b"PACK",
        b"FHDR",
        b"FCNT",
        b"xtra",
        b"ckpt",
        b"FCNT",
        b"FEND",
        b"TREX",
        b"TREE",
        *[b"INDX"] * 4,
        b"FOOT",
    ]
    opened = right == "read" or suite is Suite.PLAIN
    assert released(events) == ([b"".join(small.contents), b"abcdefg", b"tail"] if opened else [])


@every_suite
def test_with_an_identity(suite: Suite) -> None:
    small = small_archive(suite)
    for identities in ([Identity()], [Identity(b"x" * 32), Identity()]):
        events, error = read(small.data, lambda header: unlock(header, identities, allow_plain=True))  # noqa: B023
        assert error is None
        assert len(released(events)) == 3


def splits(data: bytes, seed: int) -> list[bytes]:
    """``data`` in random parts, some empty."""
    rng = random.Random(seed)
    cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randint(1, 30)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@cache
def variants(suite: Suite) -> tuple[bytes, ...]:
    """One good object, and some that are bad in various places."""
    small = small_archive(suite)
    good, found = small.data, []
    for at in (3, 9, 13, 20, 60, len(small.header.section) + 3, len(good) // 2, len(good) - 70, len(good) - 3):
        changed = bytearray(good)
        changed[at] ^= 0x11
        found.append(bytes(changed))
    cuts = [good[:at] for at in (0, 5, 40, 300, len(good) // 2, len(good) - 30)]
    return (good, good + good, good + b"junk", good + good[:20], *found, *cuts)


@every_suite
@every_right
def test_feed_independence(suite: Suite, right: str) -> None:
    choose = with_keys(keys_of(small_archive(suite), right))
    for number, data in enumerate(variants(suite)):
        whole, error = read(data, choose)
        ways = [splits(data, seed) for seed in range(3)]
        if number < 8:
            ways.append([data[i : i + 1] for i in range(len(data))])
        for way in ways:
            events, other = read(way, choose)
            assert summary(events) == summary(whole)
            assert type(other) is type(error)
            if error is not None and other is not None:
                assert (other.offset, other.block) == (error.offset, error.block)


@every_suite
@every_right
def test_every_truncation(suite: Suite, right: str) -> None:
    small = tiny(suite)
    choose = with_keys(keys_of(small, right))
    # One decoder reads byte by byte; at each place a copy of what it knows would say the same, so the cheap
    # way is to feed the prefix whole for some lengths and to trust feed independence for the others.
    wanted, _ = read(small.data, choose)
    contents = released(wanted)
    boundaries = {end for span in small.spans() for end in span}
    for length in range(len(small.data)):
        if length % 3 and not any(abs(length - at) < 3 for at in boundaries) and length < len(small.data) - 70:
            continue
        events, error = read(small.data[:length], choose)
        assert type(error) is TruncatedError
        assert released(events) == contents[: len(released(events))]
        assert not any(isinstance(event, EndEvent) for event in events)


@every_suite
@every_right
def test_every_flip(suite: Suite, right: str) -> None:
    """Every changed byte is refused with an archive error, and what was released before is right."""
    small = tiny(suite)
    choose = with_keys(keys_of(small, right))
    contents = released(read(small.data, choose)[0])
    patterns = (0x01, 0x80, 0xFF, 0x20)
    data = bytearray(small.data)
    for at in range(len(data)):
        head = at < PREFIX_SIZE or any(0 <= at - start < PREFIX_SIZE for start, _ in small.spans())
        for pattern in patterns if head and right == "read" else (patterns[at % 4],):
            data[at] ^= pattern
            events, error = read(bytes(data), choose)
            data[at] ^= pattern
            assert isinstance(error, ArchiveError), at
            assert released(events) == contents[: len(released(events))]
            assert not any(isinstance(event, EndEvent) for event in events)


@every_suite
@every_right
def test_blocks_moved(suite: Suite, right: str) -> None:
    small = small_archive(suite)
    choose = with_keys(keys_of(small, right))
    contents = released(read(small.data, choose)[0])
    spans = small.spans()
    head, tail = small.data[: spans[0][0]], small.data[spans[-1][1] :]
    frames = [small.data[start:end] for start, end in spans]
    for one in range(len(frames)):
        removed = frames[:one] + frames[one + 1 :]
        doubled = [*frames[: one + 1], *frames[one:]]
        orders = [removed, doubled]
        if one:
            swapped = list(frames)
            swapped[one - 1], swapped[one] = swapped[one], swapped[one - 1]
            orders.append(swapped)
        for order in orders:
            events, error = read(head + b"".join(order) + tail, choose)
            if one < len(frames) - 1:
                assert type(error) is BlockError
            else:  # where the tail is expected stands something else, or nothing
                assert isinstance(error, (BlockError, IndexDamaged, TruncatedError))
            assert released(events) == contents[: len(released(events))]


@every_suite
@every_right
def test_parts_of_other_archives(suite: Suite, right: str) -> None:
    one, two = small_archive(suite, b"one"), small_archive(suite, b"two")
    choose = with_keys(keys_of(one, right))
    split_one, split_two = len(one.header.section), len(two.header.section)
    assert isinstance(read(two.header.section + one.data[split_one:], choose)[1], (BlockError, KeyFailure))
    _, error = read(one.header.section + two.data[split_two:], choose)
    assert type(error) is BlockError
    (start, end), (other_start, other_end) = one.spans()[0], two.spans()[0]
    _, error = read(one.data[:start] + two.data[other_start:other_end] + one.data[end:], choose)
    assert type(error) is BlockError
    _, error = read(one.data[: one.spans()[-1][0]] + two.data[two.spans()[-1][0] :], choose)
    assert type(error) is BlockError
    _, error = read(one.data[:-64] + two.data[-64:], choose)
    assert type(error) is IndexDamaged


@every_suite
@every_right
def test_joined_archives(suite: Suite, right: str) -> None:
    one, two = small_archive(suite, b"one"), small_archive(suite, b"two")

    def choose(header: Any) -> Keys | None:
        small = one if header.archive_id == one.header.archive_id else two
        return with_keys(keys_of(small, right))(header)

    events, error = read(one.data + two.data, choose)
    assert error is None
    headers = [event for event in events if isinstance(event, HeaderEvent)]
    assert [event.base for event in headers] == [0, len(one.data)]
    assert sum(isinstance(event, EndEvent) for event in events) == 2
    for number in range(1, len(two.data), 97):
        assert type(read(one.data + two.data[:number], choose)[1]) is TruncatedError


@every_suite
def test_junk_after_the_tail(suite: Suite) -> None:
    small = small_archive(suite)
    choose = with_keys(small.keys)
    for junk in (b"\0", b"junk", bytes(100), small.data[1:100], b"\x89RZn"):
        events, error = read(small.data + junk, choose)
        assert type(error) is HeaderError
        assert any(isinstance(event, EndEvent) for event in events)
    assert type(read(small.data + small.data[:8], choose)[1]) is TruncatedError


@every_suite
def test_errors_are_sticky(suite: Suite) -> None:
    """After an error nothing more comes out, however often one asks."""
    small = small_archive(suite)
    data = bytearray(small.data)
    start, end = small.spans()[0]
    data[(start + end) // 2] ^= 1
    reader = Decoder(with_keys(small.keys))
    events = reader.feed(bytes(data))
    assert [type(event) for event in events] == [HeaderEvent]
    errors = []
    calls: list[Callable[[], Any]] = [
        lambda: reader.feed(b""),
        reader.close,
        lambda: list(reader.events()),
        reader.close,
    ]
    for call in calls:
        with pytest.raises(BlockError) as caught:
            call()
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 1


def test_feeding_after_the_end_is_misuse() -> None:
    small = small_archive(Suite.PLAIN)
    reader = Decoder(with_keys(None))
    reader.feed(small.data)
    reader.close()
    with pytest.raises(UsageError):
        reader.feed(b"x")


@pytest.mark.parametrize("data", [b"", b"\x89", b"\x89RZN\r\n\x1a\n", b"\x89RZN\r\n\x1a\n\0\0\1\0"])
def test_short_objects(data: bytes) -> None:
    assert type(read(data, with_keys(None))[1]) is TruncatedError


@pytest.mark.parametrize("data", [b"x", b"\x89RZM", b"\x89RZN\n\x1a\n", bytes(1_000), b"PK\3\4"])
def test_other_objects(data: bytes) -> None:
    assert type(read(data, with_keys(None))[1]) is HeaderError


# --- Header -------------------------------------------------------------------------------------


def rehash(section: bytes) -> bytes:
    """A header section with its digest made right."""
    return section[:16] + crypto.digest(section[:16], section[48:]) + section[48:]


def header_with(base: Suite = Suite.PLAIN, /, **changes: Any) -> bytes:
    """A header section with a changed record, rightly hashed."""
    header, keys = make_header(base, signed=False)
    return build_header(replace(header.record, **changes), keys).section


COST = (1).to_bytes(4, "little") + (8).to_bytes(4, "little")
PASS = (2, 1, bytes(16) + COST + bytes(72))
X = (1, 1, bytes(80))


@pytest.mark.parametrize(
    ("suite", "changes", "error"),
    [
        (0, {"archive_id": bytes(15)}, HeaderError),
        (0, {"kind": 9}, HeaderError),
        (0, {"creator": "x" * 65}, LimitError),
        (0, {"features": (2, 1)}, HeaderError),
        (0, {"features": (1,)}, UnsupportedError),
        (0, {"features": (77,)}, UnsupportedError),
        (0, {"suite": 3}, UnsupportedError),
        (0, {"suite": 3, "features": (9,), "volume": 1}, UnsupportedError),
        (0, {"id_key": 1}, UnsupportedError),
        (1, {"id_key": 2**64 - 1}, UnsupportedError),
        (1, {"id_key": 1, "commit_index": None}, HeaderError),
        (1, {"stanzas": ((2, 1, bytes(96)),)}, LimitError),
        (1, {"stanzas": ((2, 1, b"\xff" * 96),)}, LimitError),
        (0, {"padding": (1, 2, 1)}, HeaderError),
        (0, {"commit_secret": bytes(32)}, HeaderError),
        (0, {"stanzas": (X,)}, HeaderError),
        (0, {"volume": 1}, HeaderError),
        (1, {"suite": 3}, UnsupportedError),
        (1, {"suite": 2**64 - 1}, UnsupportedError),
        (1, {"commit_secret": None}, HeaderError),
        (1, {"commit_index": None}, HeaderError),
        (1, {"stanzas": None}, HeaderError),
        (1, {"stanzas": ()}, HeaderError),
        (1, {"stanzas": (X,) * 65}, LimitError),
        (1, {"stanzas": ((1, 1, bytes(79)),)}, HeaderError),
        (1, {"stanzas": ((2, 1, bytes(97)),)}, HeaderError),
        (1, {"stanzas": ((1, 0, bytes(80)),)}, HeaderError),
        (1, {"stanzas": ((1, 3, bytes(80)),)}, HeaderError),
        (1, {"stanzas": (PASS, PASS)}, HeaderError),
        (1, {"stanzas": (X, PASS)}, HeaderError),
        (1, {"stanzas": (PASS, (1_000, 1, b""))}, HeaderError),
        (1, {"padding": (1, 0, 1)}, HeaderError),
        (1, {"padding": (1, 65_537, 1)}, HeaderError),
        (1, {"kind": 4}, HeaderError),
    ],
)
def test_headers_that_break_a_rule(suite: int, changes: dict[str, Any], error: type[ArchiveError]) -> None:
    with pytest.raises(error) as caught:
        parse_header(header_with(Suite(suite), **changes))
    assert type(caught.value) is error


@pytest.mark.parametrize("kind", Kind)
def test_id_keys_go_with_the_kind(kind: Kind) -> None:
    for number in (0, 1, 2, 2**64 - 1):
        section = header_with(Suite.PLAIN, kind=int(kind), id_key=number)
        if number == 0 or (number == 1 and kind in (Kind.DATA, Kind.METADATA)):
            found = unlock(parse_header(section), ())
            assert found is not None
            assert (found.id_key is None) == (number == 1)  # that of a host is in no archive
        else:
            with pytest.raises(UnsupportedError):
                parse_header(section)


def test_harmless_unknowns_in_headers() -> None:
    for changes in (
        {"extra": {1_000: [b"x"]}},
        {"stanzas": (X, (1_000, 9, b"anything"))},
        {"stanzas": ((1_000, 1, b""),)},
        {"stanzas": (X,) * 64},
    ):
        section = header_with(Suite.XAES_256_GCM, **changes)
        header = parse_header(section)
        assert records.encode(header.record) == section[48:-64]


def test_order_of_refusals() -> None:
    """Magic, version, length, missing bytes, digest, record."""
    good = header_with()
    for at, value, error in (
        (0, 0, HeaderError),
        (8, 1, UnsupportedError),
        (10, 2, UnsupportedError),
        (15, 1, LimitError),
        (20, 0, HeaderError),
    ):
        changed = bytearray(good)
        changed[at] = value
        changed[-1] ^= 1  # would be a wrong digest by itself
        with pytest.raises(error):
            parse_header(bytes(changed))
        if at < 15:
            with pytest.raises(error):
                parse_header(bytes(changed[:48]))
    for length in (0, 98_305, 2**32 - 1):
        with pytest.raises(LimitError):
            parse_header(good[:12] + length.to_bytes(4, "little") + good[16:])
    bad_record = good[:48] + b"\xff" + good[49:]
    with pytest.raises(HeaderError):
        parse_header(rehash(bad_record))


def test_plain_archives_are_refused_to_a_holder_of_a_key() -> None:
    header, _ = make_header(Suite.PLAIN)
    with pytest.raises(UnsupportedError):
        unlock(header, [Identity()])
    assert unlock(header, [Identity()], allow_plain=True) is not None
    directory, _ = make_header(Suite.PLAIN, kind=Kind.DIRECTORY)
    assert unlock(directory, [Identity()]) is not None


def test_wrong_header_macs() -> None:
    for suite in SUITES:
        section = make_header(suite)[0].section
        for at in (1, 33):
            changed = bytearray(section)
            changed[-at] ^= 1
            if suite is Suite.PLAIN:
                with pytest.raises(HeaderError):
                    parse_header(rehash(bytes(changed)))
                continue
            header = parse_header(rehash(bytes(changed)))
            with pytest.raises(KeyFailure):
                unlock(header, [Identity()])
            check = with_keys(browse_keys(make_keys(suite)))
            if at == 1:
                assert check(header) is not None  # MAC_S is not for a holder of I
            else:
                with pytest.raises(KeyFailure):
                    check(header)


def test_keys_that_contradict_the_commitments() -> None:
    header, keys = make_header(Suite.XCHACHA20_POLY1305)
    for name in ("commit_secret", "commit_index"):
        changed = build_header(replace(header.record, **{name: bytes(32)}), keys)  # type: ignore[arg-type]
        with pytest.raises(KeyFailure):
            unlock(parse_header(changed.section), [Identity()])


# --- Blocks -------------------------------------------------------------------------------------


def plain(forge: Forge, data: bytes) -> tuple[list[Any], ArchiveError | None]:
    """Read what was forged."""
    return read(data, with_keys(forge.keys if forge.header.suite is not Suite.PLAIN else None))


def pack(*pieces: bytes) -> Draft:
    """A block of small contents."""
    builder = builders.PiecesBuilder(b"PACK", compression=STORED)
    for piece in pieces:
        builder.add(piece)
    return builder.seal()


def raw_block(kind: bytes, record: dict[int, Any], body: bytes = b"", *, keys_1_to_4: bool = True) -> Draft:
    """A block with any record."""
    if body and keys_1_to_4:
        record = {1: 0, 2: len(body), 3: len(body), 4: crypto.digest(body), **record}
    return Draft(kind, records.BlockRecord(extra=record), b"")


def add_plain(forge: Forge, kind: bytes, record: dict[int, Any], body: bytes = b"", **changes: Any) -> None:
    """Append a block of suite 0 with any record and body, rightly hashed."""
    if body:
        record = {1: 0, 2: len(body), 3: len(body), 4: crypto.digest(body), **record}
    values = {key: value for key, value in record.items() if value is not None}
    forge.add_raw(*frame(forge, kind, plain_header(cbor.dumps(values)), body, **changes))


def expect(error: type[ArchiveError] | None, forge: Forge, data: bytes | None = None) -> None:
    """What reading a forged archive gives."""
    _, found = plain(forge, forge.finish() if data is None else data)
    assert type(found) is (type(None) if error is None else error)


def test_forged_archives_are_right_when_nothing_is_wrong() -> None:
    for suite in SUITES:
        for signed in (False, True):
            forge = Forge(suite)
            forge.add(pack(b"a", b"b"))
            expect(None, forge)
            del signed


@every_suite
def test_unknown_types(suite: Suite) -> None:
    for kind, error in (
        (b"xyzw", None),
        (b"pQRS", None),
        (b"prty", None),
        (b"Xyzw", UnsupportedError),
        (b"PACk", UnsupportedError),
        (b"SNAP", BlockError),  # in metadata archives only
        (b"XREF", BlockError),
        (b"keyr", BlockError),
        (b"DIRY", BlockError),
        (b"x.yz", BlockError),
        (b"x\xe9yz", BlockError),
        (b"\0\0\0\0", BlockError),
    ):
        forge = Forge(suite)
        forge.add_raw(*frame(forge, kind, b"any header at all", b"any body"))
        expect(error, forge)


@every_suite
def test_flags(suite: Suite) -> None:
    for bit in range(1, 32):
        forge = Forge(suite)
        forge.add_raw(*frame(forge, b"xyzw", b"", flags=1 << bit))
        expect(UnsupportedError if bit < 16 else None, forge)
    forge = Forge(suite)
    stored, _ = frame(forge, b"xtra", b"", flags=2, sequence=9)
    assert type(plain(forge, bytes(forge.out) + stored)[1]) is BlockError  # the sequence number comes first


@every_suite
@every_right
def test_the_mac_flag_of_unknown_types(suite: Suite, right: str) -> None:
    """Whatever it says, such a block is passed over; in suite 0 no block has a MAC."""
    small = small_archive(suite)
    forge = Forge(suite)
    lead = frame(forge, b"xyzw", b"header", b"body", FLAG_MAC)[0][:-32]
    stored = lead + bytes(32)
    forge.add_raw(stored + crypto.digest(stored), crypto.digest(stored))
    _, error = read(forge.finish(), with_keys(keys_of(small, right)))
    assert type(error) is (BlockError if suite is Suite.PLAIN else type(None))


@every_suite
def test_ancillary_flags_on_known_blocks(suite: Suite) -> None:
    if suite is Suite.PLAIN:
        forge = Forge()
        add_plain(forge, b"PACK", {16: b"\1"}, b"a", flags=1 << 31)
        expect(None, forge)


def test_a_mac_flag_that_does_not_go_with_the_type() -> None:
    forge = Forge()
    header = plain_header(cbor.dumps({16: 0}))
    lead = frame(forge, b"FHDR", header, flags=FLAG_MAC)[0][:-32]
    stored = lead + bytes(32)
    forge.add_raw(stored + crypto.digest(stored), crypto.digest(stored))
    expect(BlockError, forge)
    # In an encrypted archive: one where none belongs (PACK), none where one belongs (FHDR).
    for kind, with_mac in ((b"PACK", True), (b"FHDR", False)):
        forge = Forge(Suite.XAES_256_GCM)
        lead = frame(forge, kind, bytes(40), flags=FLAG_MAC if with_mac else 0)[0][:-32]
        stored = lead + (bytes(32) if with_mac else b"")
        forge.add_raw(stored + crypto.digest(stored), crypto.digest(stored))
        expect(BlockError, forge)


@every_suite
@every_right
def test_length_limits(suite: Suite, right: str) -> None:
    small = small_archive(suite)
    choose = with_keys(keys_of(small, right))
    forge = Forge(suite, signed=True)
    changes: dict[str, Any]
    for changes in (
        {"header_length": 1_048_641},
        {"header_length": 2**32 - 1},
        {"body_length": 16_842_793},
        {"body_length": 2**64 - 1},
    ):
        stored, _ = frame(forge, b"PACK", b"", b"", 0, **changes)
        assert type(read(bytes(forge.out) + stored, choose)[1]) is LimitError
        # Before a single byte of the block behind the prefix is there.
        assert type(read(bytes(forge.out) + stored[:PREFIX_SIZE], choose)[1]) is LimitError
        assert type(read(bytes(forge.out) + stored[: PREFIX_SIZE - 1], choose)[1]) is TruncatedError
    for changes in ({"header_length": 1_048_640}, {"body_length": 16_842_792}):
        stored, _ = frame(forge, b"PACK", b"", b"", 0, **changes)
        assert type(read(bytes(forge.out) + stored, choose)[1]) is TruncatedError


@pytest.mark.parametrize(
    ("record", "body", "error"),
    [
        ({16: b"\1\1\1"}, b"abc", None),
        ({16: b"\1\1"}, b"abc", BlockError),
        ({16: b"\1\1\2"}, b"abc", BlockError),
        ({16: b"\3\0"}, b"abc", BlockError),
        ({16: b"\x83\0"}, b"abc", BlockError),
        ({16: b""}, b"abc", BlockError),
        ({}, b"abc", BlockError),
        ({16: b"\3", 1: None}, b"abc", BlockError),
        ({16: b"\3", 2: None}, b"abc", BlockError),
        ({16: b"\3", 3: None}, b"abc", BlockError),
        ({16: b"\3", 4: None}, b"abc", BlockError),
        ({16: b"\3", 4: bytes(32)}, b"abc", BlockError),
        ({16: b"\3", 3: 2}, b"abc", BlockError),
        ({16: b"\3", 3: 4}, b"abc", BlockError),
        ({16: b"\3", 3: 2**64 - 1}, b"abc", BlockError),
        ({16: b"\3", 2: 4}, b"abc", BlockError),
        ({16: b"\3", 2: 16_777_217}, b"abc", LimitError),
        ({16: b"\3", 1: 1}, b"abc", BlockError),
        ({16: b"\3", 1: 2}, b"abc", BlockError),
        ({16: b"\3", 1: 3}, b"abc", UnsupportedError),
        ({16: b"\3", 1: "x"}, b"abc", BlockError),
        ({16: b"\3", 1_000: 5}, b"abc", None),
        ({16: b""}, b"", BlockError),
        ({16: b"\1", 1: 0, 2: 1, 3: 1, 4: bytes(32)}, b"", BlockError),
        ({16: b"\1" * 65_536}, bytes(65_536), None),
        ({16: b"\1" * 65_537}, bytes(65_537), LimitError),
    ],
)
def test_packs(record: dict[int, Any], body: bytes, error: type[ArchiveError] | None) -> None:
    forge = Forge()
    add_plain(forge, b"PACK", record, body)
    expect(error, forge)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\1\0\0\0\xa0\0",
        b"\2\0\0\0\xa0",
        b"\xff\xff\xff\xff\xa0",
        plain_header(b"\xa0") + b"\0",
        plain_header(b"\x80"),
        plain_header(b"\xa1\x18\x10\x00"),
        plain_header(b"\xa1\x10\xf6"),
        plain_header(b"\xa2\x10\x00\x10\x00"),
        plain_header(b"\xa1\x10" + b"\x81" * 9 + b"\0"),
    ],
)
def test_malformed_headers(header: bytes) -> None:
    forge = Forge()
    forge.add_raw(*frame(forge, b"FHDR", header))
    expect(BlockError, forge)


def sealed_block(forge: Forge, kind: bytes, header: bytes, body: bytes) -> tuple[bytes, bytes]:
    """A block that is sealed rightly around any plaintexts."""
    from rozenfmt.format.blocks import _seal_sections
    from rozenfmt.format.registry import BLOCK_TYPES

    from .helpers import Stream

    block = _seal_sections(BLOCK_TYPES[kind], forge.slot, header, body, Stream(), sealed=True)
    return b"".join(block.buffers), block.whole_hash


@pytest.mark.parametrize("suite", SUITES[1:], ids=lambda suite: suite.name)
def test_padding(suite: Suite) -> None:
    """The rule is [32, 16, 8]: the smallest multiple that fits, and zeros only."""
    body = b"x" * 10
    record = cbor.dumps({1: 0, 2: 10, 3: 10, 4: crypto.digest(body), 16: b"\x0a"})
    lead = plain_header(record)
    fits = lead + bytes(-len(lead) % 32)
    for header, stored, error in (
        (fits, body + bytes(6), None),
        (lead, body + bytes(6), BlockError),
        (fits + bytes(32), body + bytes(6), BlockError),
        (fits[:-1] + b"\1", body + bytes(6), BlockError),
        (fits, body, BlockError),
        (fits, body + bytes(22), BlockError),
        (fits, body + bytes(5) + b"\1", BlockError),
    ):
        forge = Forge(suite)
        forge.add_raw(*sealed_block(forge, b"PACK", header, stored))
        expect(error, forge)


# --- Streams ------------------------------------------------------------------------------------


def leaf_table(length: int) -> bytes:
    """A table with one part."""
    return nodes.part_leaf([nodes.Part(0, length, bytes(32), 0, 0)])


Step = tuple[bytes, dict[int, Any], bytes]


def start(number: int) -> Step:
    return b"FHDR", {16: number}, b""


def content(number: int, count: int, offset: int, body: bytes = b"abc") -> Step:
    return b"FCNT", {16: encode_column([len(body)]), 17: number, 18: count, 19: offset}, body


def end(number: int, length: int, blocks: int, table: bytes | None = None) -> Step:
    return b"FEND", {16: number, 17: length, 18: blocks, 19: bytes(32)}, leaf_table(length) if table is None else table


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([start(0), content(0, 0, 0), end(0, 3, 1)], None),
        ([start(0)], None),  # given up
        ([start(0), start(1), content(1, 0, 0), content(0, 0, 5), end(1, 3, 1), end(0, 9, 1)], None),
        ([start(0), content(0, 0, 0), content(0, 1, 3), content(0, 2, 2**40), end(0, 2**41, 3)], None),
        ([start(1)], BlockError),
        ([start(0), start(0)], BlockError),
        ([start(0), start(2)], BlockError),
        ([content(0, 0, 0)], BlockError),
        ([end(0, 1, 0)], BlockError),
        ([start(0), end(0, 3, 0), content(0, 0, 0)], BlockError),
        ([start(0), end(0, 3, 0), end(0, 3, 0)], BlockError),
        ([start(0), end(0, 3, 0), start(0)], BlockError),
        ([start(0), content(0, 1, 0)], BlockError),
        ([start(0), content(0, 0, 0), content(0, 0, 3)], BlockError),
        ([start(0), content(0, 0, 0), content(0, 1, 2)], BlockError),
        ([start(0), content(0, 0, 0), end(0, 2, 1)], BlockError),
        ([start(0), content(0, 0, 0), end(0, 3, 0)], BlockError),
        ([start(0), content(0, 0, 0), end(0, 3, 2)], BlockError),
        ([start(0), content(0, 0, 0), end(0, 3, 1, leaf_table(4))], BlockError),
        ([start(0), content(0, 0, 0), end(0, 3, 1, b"junk")], BlockError),
        ([start(0), content(0, 0, 0), end(0, 3, 1, tree_node(b"", []))], BlockError),
        (
            [start(0), content(0, 0, 0), end(0, 3, 1, nodes.join_node(cbor.dumps({1: 77}), b"\xa0"))],
            UnsupportedError,
        ),
        ([(b"FHDR", {16: 0, 17: b"x" * 65_536}, b"")], LimitError),
        ([(b"FHDR", {16: 0, 19: "x" * 256}, b"")], LimitError),
        ([start(0), content(0, 0, 2**63 - 4)], None),
        ([start(0), content(0, 0, 2**63 - 3)], BlockError),
        ([start(0), content(0, 0, 2**64 - 1)], BlockError),
        ([(b"FHDR", {16: 0}, b"body")], BlockError),
        ([start(0), (b"FEND", {16: 0, 17: 3, 18: 0, 19: bytes(32)}, b"")], BlockError),
        ([start(n) for n in range(1_024)], None),
        ([start(n) for n in range(1_025)], LimitError),
        ([step for n in range(1_100) for step in (start(n), end(n, 1, 0))], None),
    ],
)
def test_streams(steps: list[Step], error: type[ArchiveError] | None) -> None:
    forge = Forge()
    for step in steps:
        add_plain(forge, *step)
    expect(error, forge)


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        (b"TREE", tree_node(b"", []), None),
        (b"TREE", nodes.join_node(cbor.dumps({1: 77}), b"\xa0"), None),
        (b"TREE", b"junk", BlockError),
        (b"TREE", tree_node(b"", []) + b"\0", BlockError),
        (b"TREX", cbor.dumps([[b"a", b""]]), None),
        (b"TREX", cbor.dumps([]), BlockError),
        (b"TREX", b"\xff", BlockError),
    ],
)
def test_trees(kind: bytes, body: bytes, error: type[ArchiveError] | None) -> None:
    forge = Forge()
    add_plain(forge, kind, {16: encode_column([len(body)])}, body)
    expect(error, forge)


RIGHT = b"a list of the blocks"


def add_steps(forge: Forge, steps: list[Step]) -> None:
    """Append blocks; a checkpoint's list is made when its blocks are there."""
    for kind, record, body in steps:
        if body == RIGHT:
            spans = frame_spans(bytes(forge.out) + bytes(64), len(forge.header.section))
            spans = (spans * 2)[record[16] : record[16] + record[17]]
            types = b"".join(bytes(forge.out[start + 8 : start + 12]) for start, _ in spans)
            body = cbor.dumps({1: types, 2: encode_column([end - start for start, end in spans])})  # noqa: PLW2901
        add_plain(forge, kind, record, body)


def checkpoint(first: int, count: int, previous: int | None, types: bytes | None = None) -> Step:
    body = b"" if not count else RIGHT if types is None else cbor.dumps({1: types, 2: b"\1" * count})
    return b"ckpt", {16: first, 17: count, **({} if previous is None else {18: previous})}, body


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([checkpoint(0, 0, None)], None),
        ([start(0), checkpoint(0, 1, None)], None),
        ([start(0), checkpoint(0, 0, None)], None),
        ([checkpoint(1, 0, None)], BlockError),
        ([checkpoint(0, 0, 5)], BlockError),
        ([checkpoint(0, 1, None)], BlockError),
        ([start(0), checkpoint(0, 1, None, b"PACKPACK")], BlockError),
        ([start(0), checkpoint(0, 1, None, b"")], BlockError),
        ([start(0), (b"ckpt", {16: 0, 17: 1}, b"")], BlockError),
        ([start(0), (b"ckpt", {16: 0, 17: 0}, b"\xa0")], BlockError),
        ([checkpoint(0, 0, None), checkpoint(0, 1, None)], BlockError),
    ],
)
def test_checkpoints(steps: list[Step], error: type[ArchiveError] | None) -> None:
    forge = Forge()
    add_steps(forge, steps)
    expect(error, forge)


def test_checkpoints_in_a_row() -> None:
    for right in (0, 1):
        forge = Forge()
        at = len(forge.out)
        add_steps(forge, [checkpoint(0, 0, None), checkpoint(0, 1, at + 1 - right)])
        expect(None if right else BlockError, forge)


# --- Directories of joined objects --------------------------------------------------------------


def test_directory_archives() -> None:
    rows = [[bytes(16), 0, 5], [bytes(16), 5, 5]]
    cases: list[tuple[list[dict[int, Any]], type[ArchiveError] | None]] = [
        ([{1: rows}], None),
        ([{1: []}], None),
        ([], BlockError),
        ([{1: rows}, {1: rows}], BlockError),
        ([{1: rows[::-1]}], BlockError),
        ([{}], BlockError),
        ([{1: [[bytes(15), 0, 0]]}], BlockError),
    ]
    for bodies, error in cases:
        forge = Forge(kind=Kind.DIRECTORY)
        for body in bodies:
            add_plain(forge, b"DIRY", {}, cbor.dumps(body))
        expect(error, forge)
    forge = Forge(kind=Kind.DIRECTORY)
    for kind in (b"xtra", b"prty", b"DIRY", b"xtra"):
        add_plain(forge, kind, {}, cbor.dumps({1: []}))
    expect(None, forge)
    for kind in (b"PACK", b"TREE", b"FHDR", b"ckpt"):
        forge = Forge(kind=Kind.DIRECTORY)
        add_plain(forge, kind, {16: b"\1"}, b"a")
        expect(BlockError, forge)


# --- Order, index, footer -----------------------------------------------------------------------


@every_suite
@pytest.mark.parametrize("with_key", [True, False])
def test_ancillary_blocks_after_the_index(suite: Suite, with_key: bool) -> None:
    forge = Forge(suite)
    forge.index_root()
    forge.add_raw(*frame(forge, b"xtra", b""))
    _, error = read(forge.finish(with_root=False), with_keys(forge.keys if with_key else None))
    assert type(error) is BlockError


@every_suite
@pytest.mark.parametrize("with_key", [True, False])
def test_blocks_after_the_index(suite: Suite, with_key: bool) -> None:
    for how in ("block after root", "root twice", "no root"):
        forge = Forge(suite)
        forge.add(pack(b"a"))
        if how != "no root":
            forge.index_root()
        if how == "block after root":
            forge.add(pack(b"b"))
        if how == "root twice":
            forge.index_root()
        data = forge.finish(with_root=False)
        _, error = read(data, with_keys(forge.keys if with_key else None))
        if how == "root twice":
            # Without a key one cannot tell a root from a leaf.
            blind = not with_key and suite is not Suite.PLAIN
            assert type(error) is (type(None) if blind else IndexDamaged)
        else:
            assert type(error) is BlockError


def leaf(kind: int, count: int, body: bytes, **more: Any) -> Draft:
    """A leaf of the index."""
    return Draft(b"INDX", records.IndexRecord(kind=kind, count=count, **more), body, STORED)


CONTENT = leaf(1, 1, b"prefix-a" + b"\0\0")
PATH = leaf(2, 1, b"0123456789abcdef" + b"\0\0")
TABLE = leaf(3, 1, b"PACK" + bytes(32) + b"\5", first=0, offset=0)


def indexed(*leaves: Draft, **changes: Any) -> tuple[Forge, bytes]:
    """An archive with these leaves and a root that fits, but for ``changes``."""
    forge = Forge()
    first, offset = forge.sequence, len(forge.out)
    blocks = [forge.add(one) for one in leaves]
    sizes = {1: 8, 2: 16}
    values: dict[str, Any] = {
        "first": first,
        "offset": offset,
        "kinds": bytes(one.record.kind for one in leaves),
        "lengths": encode_column([block.length for block in blocks]),
        "hashes": b"".join(block.whole_hash for block in blocks),
        "first_keys": b"".join(
            bytes(one.body)[: sizes[one.record.kind]] if one.record.kind != 3 else bytes(8) for one in leaves
        ),
        "counts": encode_column([one.record.count for one in leaves]),
    }
    forge.index_root(**{**values, **changes})
    return forge, forge.finish(with_root=False)


@pytest.mark.parametrize(
    ("leaves", "changes", "error"),
    [
        ([CONTENT, PATH, TABLE], {}, None),
        ([CONTENT, CONTENT], {}, IndexDamaged),
        ([CONTENT, leaf(1, 1, b"prefix-a" + b"\0\1")], {}, None),
        ([leaf(1, 2, b"prefix-aprefix-a" + bytes(4))], {}, IndexDamaged),
        ([PATH, CONTENT], {}, IndexDamaged),
        ([TABLE, PATH], {}, IndexDamaged),
        ([leaf(1, 2, b"prefix-aprefix-b" + bytes(4))], {}, None),
        ([leaf(1, 2, b"prefix-bprefix-a" + bytes(4))], {}, IndexDamaged),
        ([leaf(1, 2, b"prefix-aprefix-a" + b"\1\0\0\0")], {}, IndexDamaged),
        ([leaf(1, 1, b"prefix-b\0\0"), CONTENT], {}, IndexDamaged),
        ([leaf(1, 2, b"prefix-a" + bytes(4))], {}, IndexDamaged),
        ([leaf(1, 1, b"short")], {}, IndexDamaged),
        ([leaf(1, 65_536, b"prefix-a" + bytes(2))], {}, IndexDamaged),
        ([leaf(2, 2, b"0123456789abcdef" * 2 + b"\0\1\0\0")], {}, IndexDamaged),  # a path twice
        ([PATH, leaf(2, 1, b"0123456789abcdef" + b"\1\0")], {}, IndexDamaged),
        ([leaf(3, 1, b"PACK" + bytes(32), first=0, offset=0)], {}, IndexDamaged),
        ([leaf(3, 1, b"PACK", first=0, offset=0)], {}, IndexDamaged),
        ([CONTENT], {"first": 1}, IndexDamaged),
        ([CONTENT], {"offset": 1}, IndexDamaged),
        ([], {"first": 1}, IndexDamaged),
        ([CONTENT], {"kinds": b"\2"}, IndexDamaged),
        ([CONTENT], {"kinds": b"\4"}, IndexDamaged),
        ([CONTENT], {"kinds": b""}, IndexDamaged),
        ([CONTENT], {"lengths": b"\1"}, IndexDamaged),
        ([CONTENT], {"lengths": b"\x81\0"}, IndexDamaged),
        ([CONTENT], {"hashes": bytes(32)}, IndexDamaged),
        ([CONTENT], {"hashes": bytes(64)}, IndexDamaged),
        ([CONTENT], {"first_keys": b""}, IndexDamaged),
        ([CONTENT], {"first_keys": bytes(16)}, IndexDamaged),
        ([CONTENT], {"counts": b"\2"}, IndexDamaged),
        ([CONTENT], {"root": None}, IndexDamaged),
        ([CONTENT], {"totals": None}, IndexDamaged),
        (
            [Draft(b"INDX", records.IndexRecord(kind=1, count=1, first=0, offset=0), b"prefix-a\0\0", STORED)],
            {},
            IndexDamaged,
        ),
        ([Draft(b"INDX", records.IndexRecord(kind=3, count=1, first=0), b"x" * 37, STORED)], {}, IndexDamaged),
    ],
)
def test_indexes(leaves: list[Draft], changes: dict[str, Any], error: type[ArchiveError] | None) -> None:
    forge, data = indexed(*leaves, **changes)
    expect(error, forge, data)


def test_an_index_leaf_over_the_limit() -> None:
    forge = Forge()
    add_plain(forge, b"INDX", {16: 1, 17: 65_537}, bytes(20))
    assert type(plain(forge, bytes(forge.out))[1]) is LimitError


@every_suite
@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 0},
        {"blocks": 0},
        {"blocks": 2**63},
        {"root": (0, 0, 0, bytes(32))},
        {"chain": bytes(32)},
        {"header": b""},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_footers_that_contradict_the_archive(suite: Suite, changes: dict[str, Any]) -> None:
    forge = Forge(suite)
    forge.add(pack(b"a"))
    events, error = plain(forge, forge.finish(**changes))
    assert type(error) is IndexDamaged
    assert released(events) == [b"a"]
    assert not any(isinstance(event, EndEvent) for event in events)


def test_malformed_footers() -> None:
    for header in (plain_header(b"\xa0"), plain_header(b"\xff"), b"", b"\xff\xff\xff\xff"):
        forge = Forge()
        forge.index_root()
        stored, _ = frame(forge, b"FOOT", header, bytes(64))
        assert type(plain(forge, bytes(forge.out) + stored + bytes(64))[1]) is IndexDamaged


@every_suite
def test_footer_bodies(suite: Suite) -> None:
    for signed in (False, True):
        for length in (0, 63, 64, 65, 128):
            forge = Forge(suite, signed=signed)
            error: type[ArchiveError] | None = IndexDamaged  # a wrong length, or zeros for MACs
            if suite is Suite.PLAIN and length in (64, 128):  # the MACs are right there, and zeros no signature
                error = SignatureError if signed or length == 128 else None
            _, found = plain(forge, forge.finish(foot_body=bytes(length)))
            assert type(found) is (type(None) if error is None else error)


def test_tails() -> None:
    small = small_archive(Suite.PLAIN)
    body, tail = small.data[:-64], small.data[-64:]
    for other in (bytes(64), tail[:24] + bytes(32) + tail[56:], tail[:56] + bytes(8)):
        assert type(read(body + other, with_keys(None))[1]) is IndexDamaged
    found = parse_tail(tail)
    assert (found.total, found.foot_offset + found.foot_length) == (len(small.data), len(body))
    for at in (0, 8, 16, 56, 63):
        changed = bytearray(tail)
        changed[at] ^= 1
        with pytest.raises(IndexDamaged):
            parse_tail(bytes(changed))


# --- Forgeries by those who hold a little -------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES[1:], ids=lambda suite: suite.name)
def test_a_holder_of_the_browse_right_cannot_forge(suite: Suite) -> None:
    """With I one can seal blocks under I and make the MACs of I; a reader with S refuses all of it."""
    real = make_keys(suite)
    fake = replace(
        Keys.from_secret(suite, real.archive_id, b"?" * 32),
        seal_index=real.seal_index,
        foot_mac_index=real.foot_mac_index,
        path_key=real.path_key,
    )
    node = tree_node(b"", [])
    tree = builders.PiecesBuilder(b"TREE")
    tree.add(node)
    for draft in (tree.seal(), builders.checkpoint(0, [], None), Draft(b"FHDR", records.StreamStart(stream=0))):
        forge = Forge(suite, keys=fake)
        forge.add(draft)
        data = forge.finish()
        assert read(data, with_keys(browse_keys(real)))[1] is None  # to another browser it looks right
        events, error = read(data, with_keys(real))
        assert type(error) is BlockError
        assert len(events) == 1
    # Content under C cannot be made at all.
    forge = Forge(suite, keys=fake)
    forge.add(pack(b"forged"))
    events, error = read(forge.finish(), with_keys(real))
    assert type(error) is BlockError
    assert released(events) == []
    # Right blocks with a footer of one's own: dropping the last content, say.
    forge = Forge(suite)
    forge.add(pack(b"a"))
    forge.index_root()
    forge.keys = fake
    data = forge.finish(with_root=False)
    assert read(data, with_keys(browse_keys(real)))[1] is None
    assert type(read(data, with_keys(real))[1]) is IndexDamaged


@pytest.mark.parametrize("suite", SUITES[1:], ids=lambda suite: suite.name)
def test_recomputed_hashes_do_not_help(suite: Suite) -> None:
    """Flips inside sealed sections, with header hash and whole hash made right again."""
    small = tiny(suite)
    for (begin, finish), block in zip(small.spans(), small.blocks, strict=False):
        if block.type == b"xtra":
            continue
        stored = small.data[begin:finish]
        a, b = int.from_bytes(stored[40:44], "little"), int.from_bytes(stored[44:52], "little")
        mac = 32 if stored[12] & 1 else 0
        spots = [*range(52, 52 + a, 17), *range(84 + a, 84 + a + b + mac, 17)]
        for spot in spots:
            changed = bytearray(stored)
            changed[spot] ^= 4
            changed[52 + a : 84 + a] = crypto.digest(changed[: 52 + a])
            changed[-32:] = crypto.digest(changed[:-32])
            events, error = read(small.data[:begin] + bytes(changed) + small.data[finish:], with_keys(small.keys))
            assert type(error) is BlockError
            assert error.block == block.sequence
            assert not any(isinstance(e, BlockEvent) and e.block.sequence >= block.sequence for e in events)


def test_retyped_blocks_do_not_open() -> None:
    small = tiny(Suite.XAES_256_GCM)
    begin, finish = small.spans()[0]
    stored = bytearray(small.data[begin:finish])
    a = int.from_bytes(stored[40:44], "little")
    stored[8:12] = b"TREX"
    stored[52 + a : 84 + a] = crypto.digest(stored[: 52 + a])
    stored[-32:] = crypto.digest(stored[:-32])
    _, error = read(small.data[:begin] + bytes(stored) + small.data[finish:], with_keys(small.keys))
    assert type(error) is BlockError


# --- Signatures ---------------------------------------------------------------------------------


@every_suite
@every_right
def test_signers(suite: Suite, right: str) -> None:
    signed, plain_one = small_archive(suite), small_archive(suite, signed=False)
    public = crypto.ed25519_public(SEED)
    choose = with_keys(keys_of(signed, right))
    assert read(signed.data, choose, public)[1] is None
    assert type(read(signed.data, choose, bytes(32))[1]) is SignatureError
    assert type(read(plain_one.data, choose, public)[1]) is SignatureError
    assert read(plain_one.data, choose)[1] is None
    start_foot, end_foot = signed.spans()[-1]
    stored = bytearray(signed.data[start_foot:end_foot])
    stored[-33] ^= 1
    stored[-32:] = crypto.digest(stored[:-32])
    _, error = read(signed.data[:start_foot] + bytes(stored) + signed.data[end_foot:], choose)
    assert type(error) is SignatureError


def test_directories_need_no_signer() -> None:
    forge = Forge(kind=Kind.DIRECTORY)
    add_plain(forge, b"DIRY", {}, cbor.dumps({1: []}))
    assert read(forge.finish(), with_keys(None), crypto.ed25519_public(SEED))[1] is None


# --- Anything -----------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.data(), st.sampled_from(SUITES), st.sampled_from(RIGHTS))
def test_mutations_raise_archive_errors_only(data: st.DataObject, suite: Suite, right: str) -> None:
    small = tiny(suite)
    changed = bytearray(small.data)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        until = min(len(changed), at + data.draw(st.integers(0, 8)))
        changed[at:until] = data.draw(st.binary(max_size=8))
    events, error = read(bytes(changed), with_keys(keys_of(small, right)))
    if bytes(changed) != small.data:
        assert error is not None
    contents = released(read(small.data, with_keys(keys_of(small, right)))[0])
    assert released(events) == contents[: len(released(events))]


@settings(max_examples=200)
@given(st.data())
def test_fields_of_plain_blocks(data: st.DataObject) -> None:
    """Records and bodies of suite 0 changed behind right hashes: the deep checks see them all."""
    small = tiny(Suite.PLAIN)
    spans = frame_spans(small.data, len(small.header.section))
    number = data.draw(st.integers(0, len(spans) - 2))
    begin, finish = spans[number]
    stored = bytearray(small.data[begin:finish])
    a = int.from_bytes(stored[40:44], "little")
    at = data.draw(st.one_of(st.integers(52, 51 + a), st.integers(min(84 + a, len(stored) - 33), len(stored) - 33)))
    stored[at] ^= data.draw(st.integers(1, 255))
    stored[52 + a : 84 + a] = crypto.digest(stored[: 52 + a])
    stored[-32:] = crypto.digest(stored[:-32])
    if stored == small.data[begin:finish]:
        return  # it was the header hash itself
    events, error = read(small.data[:begin] + bytes(stored) + small.data[finish:], with_keys(None))
    assert isinstance(error, ArchiveError)  # at the latest, the footer's chain
    assert not any(isinstance(event, EndEvent) for event in events)
