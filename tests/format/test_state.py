"""The transition tables, and encoder and builders driven by them in any order."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rozenfmt.errors import UsageError
from rozenfmt.format import builders, cbor, crypto
from rozenfmt.format.blocks import Draft
from rozenfmt.format.codecs import Compression
from rozenfmt.format.crypto import Keys
from rozenfmt.format.decoder import BlockEvent
from rozenfmt.format.encoder import Encoder
from rozenfmt.format.header import Header
from rozenfmt.format.limits import MAX_DECODED, MAX_OPEN_STREAMS
from rozenfmt.format.registry import Codec, Suite
from rozenfmt.format.state import MACHINES, ArchiveState, Machine, PiecesState, StreamState

from .helpers import STORED, make_encoder, make_header, make_keys, read, small_archive, summary, with_keys

every_machine = pytest.mark.parametrize("name", MACHINES)


@every_machine
def test_tables_are_closed(name: str) -> None:
    """All states are of one type, can be reached, and all events of the type are used."""
    start, table = MACHINES[name]
    reached = {start}
    while more := {target for (state, _), target in table.items() if state in reached} - reached:
        reached |= more
    members: dict[str, Enum] = vars(type(start))["_member_map_"]
    assert reached == set(members.values())
    events = {event for _, event in table}
    events_of: dict[str, Enum] = vars(type(next(iter(events))))["_member_map_"]
    assert events == set(events_of.values())


class Tables(RuleBasedStateMachine):
    """Any event at any time, on every machine at once."""

    def __init__(self) -> None:
        super().__init__()
        self.machines: dict[str, Machine[Any, Any]] = {name: Machine(*row) for name, row in MACHINES.items()}
        self.expected: dict[str, Enum] = {name: row[0] for name, row in MACHINES.items()}

    @rule(name=st.sampled_from(list(MACHINES)), data=st.data())
    def event(self, name: str, data: st.DataObject) -> None:
        table = MACHINES[name][1]
        event = data.draw(st.sampled_from(sorted({e for _, e in table}, key=lambda e: str(e.name))))
        machine, target = self.machines[name], table.get((self.expected[name], event))
        assert machine.allows(event) == (target is not None)
        if target is None:
            with pytest.raises(UsageError):
                machine.step(event)
        else:
            machine.step(event)
            self.expected[name] = target

    @invariant()
    def states(self) -> None:
        assert {name: machine.state for name, machine in self.machines.items()} == self.expected


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=40, stateful_step_count=30)


# --- The encoder --------------------------------------------------------------------------------

FORMS = [STORED, Compression(Codec.ZSTD, 1), Compression(Codec.LZ4, 9)]
Op = tuple[Any, ...]


class Writer:
    """Carries out operations on an encoder; the same ones give the same bytes."""

    def __init__(self, suite: Suite) -> None:
        self.header: Header
        self.header, self.keys = make_header(suite, signed=True)
        self.encoder = make_encoder(self.header, self.keys)
        self.out = bytearray(self.encoder.begin())
        self.streams: dict[int, builders.StreamBuilder] = {}
        self.written: list[tuple[bytes, bytes]] = []

    def write(self, draft: Draft) -> None:
        self.out += b"".join(self.encoder.write(draft).buffers)
        self.written.append((draft.type, bytes(draft.body)))

    def do(self, op: Op) -> None:
        getattr(self, op[0])(*op[1:])

    def pack(self, pieces: tuple[bytes, ...], form: int) -> None:
        builder = builders.PiecesBuilder(b"PACK", compression=FORMS[form])
        for number, piece in enumerate(pieces):
            assert builder.add(piece) == number
        sequence = self.encoder.next_sequence
        self.write(builder.seal())
        self.encoder.index.add_content([crypto.digest(piece) for piece in pieces], sequence)

    def path(self, path: bytes) -> None:
        self.encoder.index.add_path(crypto.digest(path)[:16], 0, 0)

    def open(self, form: int) -> None:
        stream = self.encoder.open_stream(compression=FORMS[form])
        self.streams[stream.number] = stream
        self.write(stream.start(name=b"n", size=5))

    def content(self, number: int, pieces: tuple[bytes, ...], gap: int) -> None:
        stream = self.streams[number]
        self.write(stream.content(pieces, stream.end_offset + gap))

    def end(self, number: int, gap: int) -> None:
        stream = self.streams.pop(number)
        length = max(stream.end_offset + gap, 1)
        table = builders.PartTableBuilder()
        table.add(length, None)
        self.write(stream.end(length, bytes(32), table.finish()))

    def abandon(self, number: int) -> None:
        self.streams.pop(number).abandon()

    def checkpoint(self) -> None:
        draft = self.encoder.checkpoint()
        self.write(draft)

    def restore(self) -> None:
        """Export, through CBOR, into a new encoder."""
        state = cbor.loads(cbor.dumps(self.encoder.export()))
        self.encoder = make_encoder(self.header, self.keys)
        self.streams = self.encoder.restore(state)

    def finish(self) -> bytes:
        self.out += b"".join(self.encoder.finish(root=(bytes(32), 0, 0), totals=(0, 0)))
        return bytes(self.out)


def replay(suite: Suite, ops: list[Op]) -> bytes:
    """What these operations give without any export, restore or misuse."""
    writer = Writer(suite)
    for op in ops:
        writer.do(op)
    return writer.finish()


PIECES = st.lists(st.binary(min_size=1, max_size=20) | st.just(b"ab" * 400), min_size=1, max_size=4).map(tuple)
FORM = st.integers(0, len(FORMS) - 1)


def _wrong_when_closed(stream: builders.StreamBuilder) -> list[Callable[[], Any]]:
    return [
        stream.start,
        stream.abandon,
        lambda: stream.content([b"x"], stream.end_offset),
        lambda: stream.end(stream.end_offset + 1, bytes(32), b"x"),
    ]


def _wrong_when_open(stream: builders.StreamBuilder) -> list[Callable[[], Any]]:
    return [
        stream.start,
        lambda: stream.content([], stream.end_offset),
        lambda: stream.content([b""], stream.end_offset),
        lambda: stream.content([b"x"], stream.end_offset - 1),
        lambda: stream.content([bytes(MAX_DECODED), b"x"], stream.end_offset),
        lambda: stream.end(stream.end_offset - 1, bytes(32), b"x"),
        lambda: stream.end(0, bytes(32), b"x"),
        lambda: stream.start(media_type="x" * 256),
    ]


class Encoding(RuleBasedStateMachine):
    """Legal and illegal calls in any order; what comes out is what the legal ones alone give."""

    @initialize(suite=st.sampled_from(list(Suite)))
    def begin(self, suite: Suite) -> None:
        self.suite = suite
        self.writer = Writer(suite)
        self.ops: list[Op] = []
        self.closed: list[builders.StreamBuilder] = []
        self.finished: bytes | None = None

    def legal(self, *op: Any) -> None:
        self.writer.do(op)
        self.ops.append(op)

    @property
    def is_open(self) -> bool:
        return self.finished is None

    @precondition(lambda self: self.is_open)
    @rule(pieces=PIECES, form=FORM)
    def pack(self, pieces: tuple[bytes, ...], form: int) -> None:
        self.legal("pack", pieces, form)

    @precondition(lambda self: self.is_open)
    @rule()
    def path(self) -> None:
        self.legal("path", b"%d" % len(self.ops))  # each path is listed once

    @precondition(lambda self: self.is_open)
    @rule(form=FORM)
    def open(self, form: int) -> None:
        self.legal("open", form)

    @precondition(lambda self: self.is_open and self.writer.streams)
    @rule(data=st.data(), pieces=PIECES, gap=st.sampled_from([0, 0, 1, 2**40]))
    def content(self, data: st.DataObject, pieces: tuple[bytes, ...], gap: int) -> None:
        self.legal("content", data.draw(st.sampled_from(sorted(self.writer.streams))), pieces, gap)

    @precondition(lambda self: self.is_open and self.writer.streams)
    @rule(data=st.data(), gap=st.sampled_from([0, 1]))
    def end(self, data: st.DataObject, gap: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.writer.streams)))
        self.closed.append(self.writer.streams[number])
        self.legal("end", number, gap)

    @precondition(lambda self: self.is_open and self.writer.streams)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.writer.streams)))
        self.closed.append(self.writer.streams[number])
        self.legal("abandon", number)

    @precondition(lambda self: self.is_open)
    @rule()
    def checkpoint(self) -> None:
        self.legal("checkpoint")

    @precondition(lambda self: self.is_open)
    @rule()
    def restore(self) -> None:
        self.writer.restore()

    @rule(data=st.data())
    def misuse(self, data: st.DataObject) -> None:
        encoder = self.writer.encoder
        wrong: list[Callable[[], Any]] = [
            encoder.begin,
            lambda: encoder.assign(Draft(b"INDX", None)),
            lambda: encoder.assign(Draft(b"FOOT", None)),
            lambda: encoder.write(Draft(b"PACK", None, bytes(MAX_DECODED + 1))),
            lambda: encoder.commit(small_archive(self.suite).blocks[0]),
            lambda: list(encoder.finish()),
            lambda: list(encoder.finish(root=(bytes(32), 0, 0))),
            lambda: encoder.restore({0: 99}),
            lambda: builders.PiecesBuilder(b"PACK").seal(),
        ]
        for stream in self.closed:
            wrong += _wrong_when_closed(stream)
        for stream in self.writer.streams.values():
            wrong += _wrong_when_open(stream)
        if not self.is_open:
            wrong += [
                encoder.export,
                encoder.fail,
                lambda: encoder.write(Draft(b"PACK", None, b"x")),
                lambda: list(encoder.finish(root=(bytes(32), 0, 0), totals=(0, 0))),
                lambda: encoder.index.add_content([], 0),
            ]
        call = data.draw(st.sampled_from(wrong))
        before = (encoder.state, encoder.offset, encoder.next_sequence, encoder.idle)
        with pytest.raises(UsageError):
            call()
        assert (encoder.state, encoder.offset, encoder.next_sequence, encoder.idle) == before

    @precondition(lambda self: self.is_open and len(self.ops) > 3)
    @rule()
    def finish(self) -> None:
        self.finished = self.writer.finish()
        self.check(self.finished)

    def check(self, data: bytes) -> None:
        assert data == replay(self.suite, self.ops)
        events, error = read(data, with_keys(make_keys(self.suite)))
        assert error is None
        found = [
            (event.block.type, event.block.body)
            for event in events
            if isinstance(event, BlockEvent) and event.block.type not in (b"INDX", b"FOOT")
        ]
        assert found == self.writer.written

    @invariant()
    def nothing_is_under_way(self) -> None:
        if hasattr(self, "writer"):
            assert self.writer.encoder.idle
            assert self.writer.encoder.offset == len(self.writer.out)

    def teardown(self) -> None:
        if hasattr(self, "writer") and self.is_open:
            self.check(self.writer.finish())


TestEncoding = Encoding.TestCase
TestEncoding.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


SCRIPT: list[Op] = [
    ("open", 1),
    ("pack", (b"a", b"b" * 900), 1),
    ("content", 0, (b"abc", b"d"), 0),
    ("checkpoint",),
    ("open", 2),
    ("path", b"p"),
    ("content", 1, (b"zz" * 400,), 3),
    ("content", 0, (b"q" * 900,), 7),
    ("abandon", 1),
    ("pack", (b"c",), 0),
    ("open", 0),
    ("checkpoint",),
    ("end", 0, 1),
    ("content", 2, (b"1",), 0),
    ("checkpoint",),
]


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
def test_restoring_at_any_boundary_gives_the_same_bytes(suite: Suite) -> None:
    expected = replay(suite, SCRIPT)
    for at in range(len(SCRIPT) + 1):
        writer = Writer(suite)
        for number, op in enumerate(SCRIPT):
            if number == at:
                writer.restore()
            writer.do(op)
        if at == len(SCRIPT):
            writer.restore()
        assert writer.finish() == expected
    always = Writer(suite)
    for op in SCRIPT:
        always.restore()
        always.do(op)
    assert always.finish() == expected


def test_exports_hold_no_secret() -> None:
    writer = Writer(Suite.XAES_256_GCM)
    for op in SCRIPT:
        writer.do(op)
    state = cbor.dumps(writer.encoder.export())
    keys = make_keys(Suite.XAES_256_GCM)
    for name in Keys.__slots__:
        value = getattr(keys, name)
        if isinstance(value, bytes) and name != "archive_id":
            assert value not in state


def test_a_state_of_another_archive() -> None:
    state = Writer(Suite.PLAIN).encoder.export()
    other, _ = make_header(Suite.PLAIN, name=b"other")
    encoder = make_encoder(other, None)
    with pytest.raises(UsageError):
        encoder.restore(state)
    assert encoder.state is ArchiveState.START
    used = Writer(Suite.PLAIN).encoder
    with pytest.raises(UsageError):
        used.restore(state)


def test_before_the_header_nothing_can_be_written() -> None:
    header, keys = make_header()
    encoder = make_encoder(header, keys)
    for call in (
        lambda: encoder.write(Draft(b"PACK", None, b"x")),
        lambda: list(encoder.finish(root=(bytes(32), 0, 0), totals=(0, 0))),
        encoder.export,
    ):
        with pytest.raises(UsageError):
            call()
    writer = Writer(Suite.XCHACHA20_POLY1305)
    assert encoder.begin() == writer.header.section
    closing = b"".join(encoder.finish(root=(bytes(32), 0, 0), totals=(0, 0)))
    assert bytes(writer.out) + closing == writer.finish()


def test_keys_and_signers_go_with_the_header() -> None:
    header, keys = make_header()
    bare, _ = make_header(Suite.PLAIN, signed=False)
    for arguments in (
        (header, None, b"s" * 32),
        (header, keys, None),
        (bare, keys, None),
        (bare, None, b"s" * 32),
    ):
        with pytest.raises(UsageError):
            Encoder(arguments[0], arguments[1], entropy=bytes, signer_seed=arguments[2])


def test_a_failed_archive_stays_failed() -> None:
    writer = Writer(Suite.PLAIN)
    writer.do(SCRIPT[1])
    writer.encoder.fail()
    assert writer.encoder.state is ArchiveState.FAILED
    for call in (
        writer.encoder.fail,
        writer.encoder.export,
        lambda: writer.pack((b"x",), 0),
        lambda: list(writer.encoder.finish(root=(bytes(32), 0, 0), totals=(0, 0))),
    ):
        with pytest.raises(UsageError):
            call()


def test_blocks_are_committed_in_order() -> None:
    writer = Writer(Suite.XCHACHA20_POLY1305)
    encoder = writer.encoder
    drafts = []
    for content in (b"a", b"b", b"c"):
        builder = builders.PiecesBuilder(b"PACK", compression=STORED)
        builder.add(content)
        drafts.append(builder.seal())
    slots = [encoder.assign(draft) for draft in drafts]
    sealed = [draft.seal(slot, bytes) for draft, slot in zip(drafts, slots, strict=True)]
    assert not encoder.idle
    with pytest.raises(UsageError):
        encoder.export()
    with pytest.raises(UsageError):
        list(encoder.finish(root=(bytes(32), 0, 0), totals=(0, 0)))
    with pytest.raises(UsageError):
        encoder.commit(sealed[1])
    for block in sealed:
        encoder.commit(block)
        with pytest.raises(UsageError):
            encoder.commit(block)
        writer.out += b"".join(block.buffers)
    events, error = read(writer.finish(), with_keys(make_keys(Suite.XCHACHA20_POLY1305)))
    assert error is None
    bodies = [event.block.body for event in events if isinstance(event, BlockEvent) and event.block.type == b"PACK"]
    assert bodies == [b"a", b"b", b"c"]


def test_streams_start_in_order() -> None:
    writer = Writer(Suite.PLAIN)
    one, two = writer.encoder.open_stream(), writer.encoder.open_stream()
    late = two.start()
    with pytest.raises(UsageError):
        writer.write(late)
    writer.write(one.start())
    writer.write(late)
    assert read(writer.finish(), with_keys(None))[1] is None


def test_open_streams_are_limited_as_readers_count_them() -> None:
    writer = Writer(Suite.PLAIN)
    for number in range(MAX_OPEN_STREAMS):
        writer.open(0)
        if number % 2:
            writer.abandon(number)
        if number % 300 == 299:
            writer.restore()
    with pytest.raises(UsageError):
        writer.encoder.open_stream()
    assert len(writer.streams) == MAX_OPEN_STREAMS // 2
    writer.end(0, 1)
    writer.open(0)
    with pytest.raises(UsageError):
        writer.encoder.open_stream()
    assert read(writer.finish(), with_keys(None))[1] is None


def test_ended_streams_do_not_count() -> None:
    writer = Writer(Suite.PLAIN)
    for number in range(MAX_OPEN_STREAMS + 10):
        writer.open(0)
        writer.end(number, 1)
    assert read(writer.finish(), with_keys(None))[1] is None


def test_entropy_makes_all_the_difference() -> None:
    """Nonces are fresh for each section, never zero or reused."""
    small = small_archive(Suite.XCHACHA20_POLY1305)
    nonces = []
    for begin, finish in small.spans()[:-1]:
        stored = small.data[begin:finish]
        if stored[8:12] == b"xtra":
            continue
        a, b = int.from_bytes(stored[40:44], "little"), int.from_bytes(stored[44:52], "little")
        nonces.append(stored[52:76])
        if b:
            nonces.append(stored[84 + a : 108 + a])
    assert len(set(nonces)) == len(nonces) > 10


# --- Blocks of pieces ---------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(1, 100))
def test_pieces(pieces: list[bytes], target: int) -> None:
    builder = builders.PiecesBuilder(b"PACK", target=target, compression=STORED)
    kept: list[bytes] = []
    for piece in pieces:
        size = sum(map(len, kept))
        fits = bool(piece) and (not kept or size + len(piece) <= target)
        assert (builder.fits(len(piece)) and bool(piece)) == fits
        if fits:
            assert builder.add(piece) == len(kept)
            kept.append(piece)
        else:
            with pytest.raises(UsageError):
                builder.add(piece)
        assert (builder.count, builder.size) == (len(kept), sum(map(len, kept)))
    if not kept:
        with pytest.raises(UsageError):
            builder.seal()
        assert builder.state is PiecesState.EMPTY
        return
    draft = builder.seal()
    assert draft.body == b"".join(kept)
    for call in (builder.seal, lambda: builder.add(b"x")):
        with pytest.raises(UsageError):
            call()


def test_an_empty_block_takes_any_piece_up_to_the_limit() -> None:
    builder = builders.PiecesBuilder(b"PACK", target=10)
    assert builder.fits(MAX_DECODED)
    assert not builder.fits(MAX_DECODED + 1)
    builder.add(bytes(MAX_DECODED))
    assert not builder.fits(1)


def test_65536_pieces() -> None:
    builder = builders.PiecesBuilder(b"PACK")
    for _ in range(65_536):
        builder.add(b"x")
    assert not builder.fits(1)
    with pytest.raises(UsageError):
        builder.add(b"x")
    writer = Writer(Suite.PLAIN)
    writer.write(builder.seal())
    assert read(writer.finish(), with_keys(None))[1] is None


def test_stream_states() -> None:
    stream = builders.StreamBuilder(0)
    assert stream.state is StreamState.NEW
    for call in (
        lambda: stream.content([b"x"], 0),
        lambda: stream.end(1, bytes(32), b"x"),
        stream.abandon,
    ):
        with pytest.raises(UsageError):
            call()
        assert stream.state is StreamState.NEW
    stream.start()
    again = builders.StreamBuilder.restore(stream.export())
    assert again.export() == stream.export()


def test_footer_states() -> None:
    footer = builders.FooterBuilder(b"", bytes(32), bytes(16))
    with pytest.raises(UsageError):
        footer.record(0, 0, bytes(32))
    with pytest.raises(UsageError):
        footer.tail(0, 0)
    footer.root(0, 0, 0, bytes(32))
    with pytest.raises(UsageError):
        footer.root(0, 0, 0, bytes(32))
    with pytest.raises(UsageError):
        footer.tail(0, 0)
    footer.record(0, 0, bytes(32))
    with pytest.raises(UsageError):
        footer.record(0, 0, bytes(32))
    assert len(footer.tail(5, 7)) == 64
    with pytest.raises(UsageError):
        footer.tail(5, 7)


def test_the_same_calls_give_the_same_bytes() -> None:
    for suite in Suite:
        first, second = replay(suite, SCRIPT), replay(suite, SCRIPT)
        assert first == second
        events, error = read(first, with_keys(make_keys(suite)))
        assert error is None
        assert summary(events)
