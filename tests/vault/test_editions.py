"""Editions as objects, and the one view that several of them add up to."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rozenfmt.errors import ArchiveError, HeaderError, LimitError, SignatureError, UnsupportedError, UsageError
from rozenfmt.format import cbor, crypto, records
from rozenfmt.keys import Recipient
from rozenfmt.vault import editions
from rozenfmt.vault.editions import (
    Edition,
    HostRow,
    HostState,
    OtherOwnerError,
    build_edition,
    merge,
    parse_edition,
)
from rozenfmt.vault.keyring import Person

from . import BROWSER, CAROL, DAVE, NOW, OWNER, READER, STRANGER, after, altered, first, sign

ORDER = 2**252 + 27742317777372353535851937790883648493


def host(number: int) -> HostRow:
    return HostRow(bytes([number]) * 16, crypto.ed25519_public(bytes([number]) * 32))


def with_host(*of: Edition, number: int) -> Edition:
    return after(*of, seed=100 + number, add_hosts=[(host(number), bytes([number]) * 32, f"host {number}")])


@pytest.fixture(scope="module")
def edition() -> Edition:
    """One with a row of everything."""
    one = first(recipients=(READER.recipient,), browsers=(BROWSER.recipient,))
    return after(with_host(one, number=1), remove_people=[READER.recipient])


# --- One edition --------------------------------------------------------------------------------


def test_the_form_is_that_of_the_specification(edition: Edition) -> None:
    raw = edition.raw
    assert raw[:8] == bytes.fromhex("89525A450D0A1A0A")
    assert int.from_bytes(raw[8:12], "little") == len(raw) - 76
    record = cbor.loads(raw[12:-64])
    assert list(record) == list(range(1, 13))
    assert (record[2], record[3], record[4], record[12]) == ([0, 1], [], 3, NOW)
    assert record[6] == OWNER.recipient.x25519 + OWNER.recipient.ed25519
    assert [row[0] for row in record[7]] == [1, 2]
    assert sorted(right for right, _ in record[9]) == [1, 2]  # the owner's, the browser's; the reader was removed
    assert edition.digest == crypto.digest(raw)
    crypto.verify_signature(
        OWNER.recipient.ed25519, b"rozenfmt v0 edition" + record[1] + crypto.digest(raw[12:-64]), raw[-64:]
    )


def test_the_encoding_is_canonical(edition: Edition) -> None:
    again = parse_edition(edition.raw, owner=OWNER.recipient, vault_id=edition.vault_id)
    assert again == edition
    assert records.encode(again.record) == edition.raw[12:-64]
    assert build_edition(OWNER, again.record) == edition.raw


def test_a_key_that_is_not_known_is_kept(edition: Edition) -> None:
    raw = altered(edition, extra={13: "policy", 99: [1, 2]})
    found = parse_edition(raw, owner=OWNER.recipient)
    assert found.record.extra == {13: "policy", 99: [1, 2]}
    assert records.encode(found.record) == raw[12:-64]


@pytest.mark.parametrize("owner", [OWNER.recipient, None], ids=["owner given", "any owner"])
def test_every_truncation_and_flip_is_refused(edition: Edition, owner: Recipient | None) -> None:
    raw = edition.raw
    for end in range(len(raw)):
        with pytest.raises(ArchiveError):
            parse_edition(raw[:end], owner=owner)
    for at in range(len(raw)):
        for bit in (0x01, 0x80):
            with pytest.raises(ArchiveError):
                parse_edition(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :], owner=owner)
    with pytest.raises(HeaderError):
        parse_edition(raw + b"\0", owner=owner)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused(data: bytes, framed: bool) -> None:
    raw = editions.MAGIC + len(data).to_bytes(4, "little") + data + bytes(64) if framed else data
    with pytest.raises(ArchiveError) as caught:
        parse_edition(raw, name="editions/x")
    assert caught.value.object == "editions/x"


def test_lengths_are_limited_before_they_are_believed() -> None:
    with pytest.raises(LimitError):
        parse_edition(editions.MAGIC + (1_048_577).to_bytes(4, "little"))
    with pytest.raises(HeaderError):
        parse_edition(editions.MAGIC + bytes(4) + bytes(64))


def test_somebody_elses_signature_is_refused(edition: Edition) -> None:
    with pytest.raises(SignatureError):
        parse_edition(altered(edition, by=STRANGER), owner=OWNER.recipient)
    with pytest.raises(SignatureError):
        parse_edition(altered(edition, by=STRANGER))


def test_another_owner_is_refused(edition: Edition) -> None:
    theirs, mine = STRANGER.recipient, OWNER.recipient
    for owner in (theirs, Recipient(mine.x25519, theirs.ed25519)):
        raw = altered(edition, by=STRANGER, owner=owner.x25519 + owner.ed25519)
        assert parse_edition(raw).owner == owner
        with pytest.raises(OtherOwnerError):
            parse_edition(raw, owner=mine)
        with pytest.raises(OtherOwnerError):
            parse_edition(raw, owner=frozenset({mine, CAROL.recipient}))
    assert parse_edition(edition.raw, owner=frozenset({mine, theirs})) == edition


def test_another_vault_is_refused(edition: Edition) -> None:
    with pytest.raises(SignatureError):
        parse_edition(edition.raw, vault_id=bytes(16))
    # Nor does a signature for one vault hold for another one.
    body = records.encode(replace(edition.record, vault_id=bytes(16)))
    with pytest.raises(SignatureError):
        parse_edition(sign(body, vault_id=edition.vault_id))


def test_a_signature_for_another_purpose_is_refused(edition: Edition) -> None:
    with pytest.raises(SignatureError):
        parse_edition(sign(edition.raw[12:-64], vault_id=edition.vault_id, label=b"rozenfmt v0 tombstone"))


def test_signatures_are_strict(edition: Edition) -> None:
    s = int.from_bytes(edition.raw[-32:], "little") + ORDER
    with pytest.raises(SignatureError):
        parse_edition(edition.raw[:-32] + s.to_bytes(32, "little"))
    # With a key of small order anybody makes signatures.
    weak = records.encode(replace(edition.record, owner=OWNER.recipient.x25519 + bytes([1]) + bytes(31)))
    raw = sign(weak, vault_id=edition.vault_id)[:-64] + bytes([1]) + bytes(63)
    with pytest.raises(SignatureError):
        parse_edition(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": 1},
        {"parents": ()},
        {"parents": (b"\x01" * 32, bytes(32))},
        {"parents": (bytes(32), bytes(32))},
        {"parents": (bytes(31),)},
        {"epochs": ()},
        {"epochs": ((2, bytes(8), bytes(32), bytes(32)), (1, b"\x01" * 8, bytes(32), bytes(32)))},
        {"epochs": ((1, bytes(8), bytes(32), bytes(32)), (2, bytes(8), bytes(32), bytes(32)))},
        {"epochs": ((0, bytes(8), bytes(32), bytes(32)),)},
        {"epochs": ((1, bytes(8), bytes(32)),)},
        {"hosts": ((b"\x01" * 16, bytes(32), 1), (bytes(16), bytes(32), 1))},
        {"hosts": ((bytes(16), bytes(32), 1), (bytes(16), b"\x01" * 32, 1))},
        {"hosts": ((bytes(16), bytes(32), 3),)},
        {"hosts": ((bytes(16), bytes(32), 0),)},
        {"hosts": ((bytes(15), bytes(32), 1),)},
        {"stanzas": ()},
        {"stanzas": ((3, bytes(80)),)},
        {"stanzas": ((1, bytes(79)),)},
        {"read_box": 1},
        {"made": -1},
    ],
    ids=lambda change: str(change)[:60],
)
def test_malformed_records_are_refused_though_signed(edition: Edition, change: dict[str, Any]) -> None:
    with pytest.raises(HeaderError):
        parse_edition(altered(edition, **change), owner=OWNER.recipient)
    with pytest.raises(UsageError):
        build_edition(OWNER, replace(edition.record, **change))


@pytest.mark.parametrize("missing", range(1, 13))
def test_all_keys_are_needed(edition: Edition, missing: int) -> None:
    record = cbor.loads(edition.raw[12:-64])
    del record[missing]
    with pytest.raises(HeaderError):
        parse_edition(sign(cbor.dumps(record), vault_id=edition.vault_id))


def test_what_a_newer_version_signed_is_unsupported(edition: Edition) -> None:
    record = cbor.loads(edition.raw[12:-64])
    for change in ({2: [0, 2]}, {2: [1, 1]}, {3: [5]}, {3: [5], 7: "another form"}):
        raw = sign(cbor.dumps(record | change), vault_id=edition.vault_id)
        with pytest.raises(UnsupportedError):
            parse_edition(raw, owner=OWNER.recipient)
        # Nobody else can stop a reader by pretending to be one.
        with pytest.raises(SignatureError):
            parse_edition(raw[:-1] + bytes([raw[-1] ^ 1]), owner=OWNER.recipient)
        with pytest.raises(SignatureError):
            parse_edition(raw, owner=STRANGER.recipient)
    for wrong in ({3: [5, 5]}, {3: [6, 5]}, {2: [0]}, {2: "0.1"}):
        with pytest.raises(HeaderError):
            parse_edition(sign(cbor.dumps(record | wrong), vault_id=edition.vault_id))


def test_an_edition_that_readers_would_refuse_is_not_made(edition: Edition) -> None:
    with pytest.raises(UsageError):
        build_edition(STRANGER, edition.record)
    with pytest.raises(UsageError):
        build_edition(OWNER, replace(edition.record, read_box=bytes(1 << 20)))
    with pytest.raises(UsageError):
        build_edition(OWNER, replace(edition.record, made=2**64))


def test_errors_name_the_object(edition: Edition) -> None:
    with pytest.raises(SignatureError) as caught:
        parse_edition(altered(edition, by=STRANGER), name="editions/00000003-0000000000000000")
    assert caught.value.object == "editions/00000003-0000000000000000"
    assert "editions/00000003-0000000000000000" in str(caught.value)


# --- The view -----------------------------------------------------------------------------------


def test_one_edition_is_its_own_view(edition: Edition) -> None:
    view = merge([edition])
    assert (view.vault_id, view.owner, view.number) == (edition.vault_id, OWNER.recipient, 3)
    assert view.heads == (edition,) and view.digests == (edition.digest,) and view.raw_heads == (edition.raw,)
    assert view.epochs == edition.epochs and view.current_epoch == edition.epochs[-1]
    assert dict(view.hosts) == {host(1).host_id: host(1)}
    assert view.missing_parents == edition.parents
    assert view.all_digests == (edition.digest,)


def test_a_later_edition_replaces_its_parents() -> None:
    one = first()
    two = with_host(one, number=1)
    three = with_host(two, number=2)
    for some in itertools.permutations([one, two, three, two]):
        view = merge(some)
        assert view.heads == (three,)
        assert view.all_digests == tuple(sorted(e.digest for e in (one, two, three)))
        assert view.missing_parents == ()
    # What is missing between leaves an old head beside the new one, which has all its rows.
    assert merge([one, three]).hosts == merge([three]).hosts
    assert merge([one, three]).missing_parents == (two.digest,)


def test_two_hosts_enrolled_at_once_are_both_there() -> None:
    one = first()
    left, right = with_host(one, number=1), with_host(one, number=2)
    view = merge([right, one, left])
    assert view.digests == tuple(sorted((left.digest, right.digest)))
    assert view.number == 2
    assert set(view.hosts) == {host(1).host_id, host(2).host_id}
    joined = with_host(left, right, number=3)
    assert joined.number == 3 and joined.parents == view.digests
    assert merge([one, left, right, joined]).heads == (joined,)
    assert set(merge([joined]).hosts) == {host(n).host_id for n in (1, 2, 3)}


def test_a_retired_host_stays_retired() -> None:
    base = with_host(first(), number=1)
    retired = after(base, retire_hosts=[host(1).host_id])
    beside = with_host(base, number=2)
    for some in itertools.permutations([base, retired, beside]):
        assert merge(some).host(host(1).host_id).state is HostState.RETIRED
        assert merge(some).host(host(2).host_id).state is HostState.ACTIVE


def test_a_forged_host_is_unknown() -> None:
    one = with_host(first(), number=1)
    row = host(1)
    forged = altered(one, by=STRANGER, hosts=((row.host_id, host(9).verify_key, 1),))
    with pytest.raises(SignatureError):
        parse_edition(forged, owner=OWNER.recipient)
    assert merge([one]).host(row.host_id) == row
    with pytest.raises(SignatureError):
        merge([one]).host(host(9).host_id)


def test_no_edition_is_no_vault() -> None:
    with pytest.raises(HeaderError):
        merge([])


def test_vaults_and_owners_do_not_mix() -> None:
    one, other = first(seed=0), first(seed=1)
    assert one.vault_id != other.vault_id
    with pytest.raises(SignatureError):
        merge([one, other])
    theirs = STRANGER.recipient.x25519 + STRANGER.recipient.ed25519
    with pytest.raises(SignatureError):
        merge([one, parse_edition(altered(one, by=STRANGER, owner=theirs))])


def test_heads_that_contradict_each_other_are_refused() -> None:
    one = with_host(first(), number=1)
    number, id_, read, browse = one.record.epochs[0]
    for change in (
        {"epochs": ((number, id_, browse, read),)},
        {"epochs": ((number + 1, id_, read, browse),)},
        {"hosts": ((host(1).host_id, host(2).verify_key, 1),)},
    ):
        other = parse_edition(altered(one, made=5, **change))
        for pair in ([one, other], [other, one]):
            with pytest.raises(HeaderError):
                merge(pair)


# --- What was seen before -----------------------------------------------------------------------


def test_a_rolled_back_view_is_refused() -> None:
    one = first()
    two = with_host(one, number=1)
    three = with_host(two, number=2)
    pin = (3, (three.digest,))
    merge([one, two, three]).check_pin(*pin)
    merge([three]).check_pin(*pin)
    for some in ([one], [two], [one, two]):
        with pytest.raises(SignatureError):
            merge(some).check_pin(*pin)
    # The number alone is enough, and so are the digests.
    with pytest.raises(SignatureError):
        merge([one, two]).check_pin(3, ())
    with pytest.raises(SignatureError):
        merge([one, two]).check_pin(1, (three.digest,))


def test_what_was_seen_may_have_been_replaced() -> None:
    one = first()
    two = with_host(one, number=1)
    three = with_host(two, number=2)
    for known in (one, two, three):
        merge([one, two, three]).check_pin(known.number, (known.digest,))
    merge([three]).check_pin(2, (two.digest,))  # known as a parent, though it is lost


def test_a_hidden_head_is_noticed() -> None:
    one = first()
    left, right = with_host(one, number=1), with_host(one, number=2)
    pin = (2, tuple(sorted((left.digest, right.digest))))
    merge([one, left, right]).check_pin(*pin)
    merge([with_host(left, right, number=3)]).check_pin(*pin)
    for shown in (left, right):
        with pytest.raises(SignatureError):
            merge([one, shown]).check_pin(*pin)
    # A successor of one of them has a higher number, and still does not speak for the other.
    with pytest.raises(SignatureError):
        merge([one, left, with_host(left, number=3)]).check_pin(*pin)


# --- Any history --------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.data())
def test_any_history_adds_up_in_any_order(data: st.DataObject) -> None:
    """Changes based on whatever part of the history somebody saw; a view has all of them."""
    history = [first(recipients=(CAROL.recipient,), browsers=(DAVE.recipient,))]
    hosts: set[bytes] = set()
    for number in range(1, data.draw(st.integers(1, 6)) + 1):
        seen = data.draw(st.lists(st.sampled_from(history), min_size=1, max_size=3))
        view = merge(seen)
        if data.draw(st.booleans()):
            new = with_host(*seen, number=number)
            hosts.add(host(number).host_id)
        else:
            new = after(*seen, seed=50 + number, new_epoch=True)
        assert new.number == 1 + max(e.number for e in view.heads)
        history.append(new)
    shuffled = data.draw(st.permutations(history))
    view = merge(shuffled)
    assert view == merge(history)
    parents = {parent for e in history for parent in e.parents}
    assert set(view.digests) == {e.digest for e in history} - parents
    assert set(view.hosts) == hosts
    assert {epoch.id for epoch in view.epochs} == {epoch.id for e in history for epoch in e.epochs}
    assert view.current_epoch == max(view.epochs, key=lambda epoch: (epoch.number, epoch.id))
    for part in history:
        view.check_pin(part.number, (part.digest,))
    joined = after(*history, seed=99, add_people=[Person(STRANGER.recipient)])
    assert merge([joined]).hosts == view.hosts
    assert merge([*history, joined]).heads == (joined,)
