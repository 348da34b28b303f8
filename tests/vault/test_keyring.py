"""What people can do with a vault, and what they cannot; editions in a storage."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from rozenfmt.errors import (
    ArchiveError,
    ConflictError,
    HeaderError,
    KeyFailure,
    LimitError,
    NoMatchingKey,
    SignatureError,
    StorageError,
    UnsupportedError,
    UsageError,
)
from rozenfmt.format import cbor, crypto
from rozenfmt.format.crypto import Keys
from rozenfmt.format.header import Header, build_header, unlock
from rozenfmt.format.records import HeaderRecord
from rozenfmt.format.registry import Kind, Right, StanzaType, Suite
from rozenfmt.keys import Identity, Recipient
from rozenfmt.storage import Storage, open_storage
from rozenfmt.vault import editing
from rozenfmt.vault.editing import enrol
from rozenfmt.vault.editions import MAX_OBJECT, Edition, Epoch, HostRow, HostState, PersonState, merge, parse_edition
from rozenfmt.vault.keyring import EpochKey, Keyring, Person, open_keyring
from rozenfmt.vault.layout import edition_name, parse_edition_name
from rozenfmt.vault.loading import load_view, store_edition

from . import (
    BROWSER,
    CAROL,
    DAVE,
    NOW,
    OWNER,
    READER,
    STRANGER,
    Dice,
    after,
    altered,
    first,
    opened,
    reboxed,
    sign,
)

SECRET, ARCHIVE = crypto.digest(b"secret"), crypto.digest(b"archive")[:16]
SMALL_ORDER = Recipient(bytes(32), bytes(32))


def to(public: bytes) -> Recipient:
    return Recipient(public, bytes(32))


def archive_to(epoch: Epoch) -> Header:
    """Header of an archive as a host makes it: two stanzas."""
    keys = Keys.from_secret(Suite.XCHACHA20_POLY1305, ARCHIVE, SECRET)
    commit_secret = keys.commitment_to_secret()
    stanzas = (
        (1, 1, to(epoch.read_public).wrap(Right.READ, ARCHIVE, SECRET, Dice(7))),
        (1, 2, to(epoch.browse_public).wrap(Right.BROWSE, ARCHIVE, keys.index_key, Dice(8))),
    )
    record = HeaderRecord(
        archive_id=ARCHIVE,
        kind=Kind.DATA,
        suite=1,
        features=(),
        padding=(1, 1, 1),
        creator="test",
        commit_secret=commit_secret,
        commit_index=keys.commitment_to_index_key(),
        stanzas=stanzas,
        id_key=1,
    )
    return build_header(record, keys)


def right_to(header: Header, keyring: Keyring) -> Right | None:
    """What a keyring can do with an archive."""
    try:
        keys = unlock(header, keyring.unwrappers)
    except NoMatchingKey:
        return None
    assert keys is not None
    return keys.right


def enrolled(*of: Edition, label: str = "laptop", seed: int = 30) -> tuple[Edition, Any]:
    raw, key = enrol(opened(*of), OWNER, label, entropy=Dice(seed), now_ns=NOW)
    return parse_edition(raw), key


@pytest.fixture(scope="module")
def base() -> Edition:
    return first(recipients=(READER.recipient,), browsers=(BROWSER.recipient,))


# --- Rights -------------------------------------------------------------------------------------


def test_the_same_dice_make_the_same_edition(base: Edition) -> None:
    again = first(recipients=(READER.recipient,), browsers=(BROWSER.recipient,))
    assert again == base
    assert first(seed=1).vault_id != base.vault_id


def test_everybody_gets_their_right(base: Edition) -> None:
    header = archive_to(merge([base]).current_epoch)
    for who, right in ((OWNER, Right.READ), (READER, Right.READ), (BROWSER, Right.BROWSE)):
        keyring = opened(base, by=who)
        assert keyring.right is right
        assert right_to(header, keyring) is right
    with pytest.raises(NoMatchingKey):
        opened(base, by=STRANGER)
    with pytest.raises(NoMatchingKey):
        open_keyring(merge([base]), [])
    # To read is more than to browse, whatever the order of the keys.
    for pair in itertools.permutations([STRANGER, BROWSER, READER]):
        assert open_keyring(merge([base]), pair).right is Right.READ


def test_a_browser_gets_no_read_key_and_no_id_key(base: Edition) -> None:
    edition, key = enrolled(base)
    browser, reader = opened(edition, by=BROWSER), opened(edition, by=READER)
    assert [one.right for one in browser.unwrappers] == [Right.BROWSE]
    assert sorted(one.right for one in reader.unwrappers) == [Right.READ, Right.BROWSE]
    assert browser.id_key(key.host_id) is None and reader.id_key(key.host_id) == key.id_key
    assert browser.label(key.host_id) == reader.label(key.host_id) == "laptop"
    assert browser.people == [] and len(reader.people) == 3
    # Not hidden somewhere, either: the box that a browser opens does not have them.
    secrets = [one._private for one in reader.unwrappers if one.right is Right.READ] + [key.id_key]
    seen: list[Any] = []

    def look(box: Any) -> Any:
        seen.append(box)
        return box

    reboxed(edition, BROWSER, look)
    plain = repr([(box.epochs, box.hosts, box.extra) for box in seen])
    assert seen and not any(repr(secret) in plain for secret in secrets)


def test_people(base: Edition) -> None:
    people = {one.recipient: one for one in opened(base, by=READER).people}
    assert people == {
        OWNER.recipient: Person(OWNER.recipient),
        READER.recipient: Person(READER.recipient),
        BROWSER.recipient: Person(BROWSER.recipient, Right.BROWSE),
    }


def test_unknown_hosts(base: Edition) -> None:
    keyring = opened(base)
    with pytest.raises(SignatureError):
        keyring.id_key(bytes(16))
    with pytest.raises(SignatureError):
        keyring.label(bytes(16))


def test_a_key_of_an_epoch_opens_stanzas_of_its_right_only(base: Edition) -> None:
    epoch = merge([base]).current_epoch
    keys = {one.right: one for one in opened(base).unwrappers}
    for right, public in ((Right.READ, epoch.read_public), (Right.BROWSE, epoch.browse_public)):
        other = Right.BROWSE if right is Right.READ else Right.READ
        assert keys[right].stanza_type is StanzaType.X25519
        assert keys[right].unwrap(right, ARCHIVE, to(public).wrap(right, ARCHIVE, SECRET, Dice())) == SECRET
        # A stanza that this very key would open, for the other right.
        with pytest.raises(NoMatchingKey):
            keys[right].unwrap(other, ARCHIVE, to(public).wrap(other, ARCHIVE, SECRET, Dice()))
        with pytest.raises(NoMatchingKey):
            keys[right].unwrap(right, bytes(16), to(public).wrap(right, ARCHIVE, SECRET, Dice()))
        with pytest.raises(NoMatchingKey):
            keys[other].unwrap(right, ARCHIVE, to(public).wrap(right, ARCHIVE, SECRET, Dice()))


def test_nothing_secret_is_shown(base: Edition) -> None:
    edition, key = enrolled(base)
    keyring = opened(edition)
    secrets = [one._private for one in keyring.unwrappers] + [key.id_key]
    things = [keyring, *keyring.unwrappers, *keyring._opened, keyring.view, edition, editing._gather(keyring)]
    shown = "".join(f"{thing!r}{thing}" for thing in things)
    for secret in secrets:
        assert repr(secret)[2:-1] not in shown and secret.hex() not in shown


# --- Changes ------------------------------------------------------------------------------------


def test_somebody_added_reads_everything(base: Edition) -> None:
    old = archive_to(merge([base]).current_epoch)
    added = after(base, add_people=[Person(CAROL.recipient, label="Carol"), Person(DAVE.recipient, Right.BROWSE)])
    assert merge([added]).epochs == merge([base]).epochs  # no archive is written again
    assert right_to(old, opened(added, by=CAROL)) is Right.READ
    assert right_to(old, opened(added, by=DAVE)) is Right.BROWSE
    people = opened(added, by=CAROL).people
    assert Person(CAROL.recipient, label="Carol") in people
    assert people == sorted(people, key=lambda one: one.recipient.x25519)


def test_somebody_removed_reads_what_was_before_and_nothing_new(base: Edition) -> None:
    removed = after(base, remove_people=[READER.recipient, BROWSER.recipient])
    view = merge([base, removed])
    assert len(view.epochs) == 2 and view.current_epoch.number == 2
    old, new = archive_to(view.epochs[0]), archive_to(view.current_epoch)
    for who in (READER, BROWSER):
        with pytest.raises(NoMatchingKey):
            open_keyring(view, [who])
        kept = opened(base, by=who)
        assert right_to(old, kept) is kept.right
        assert right_to(new, kept) is None
    assert right_to(old, opened(removed)) is right_to(new, opened(removed)) is Right.READ
    states = {one.recipient: one.state for one in opened(removed).people}
    assert states[READER.recipient] is states[BROWSER.recipient] is PersonState.REMOVED
    assert states[OWNER.recipient] is PersonState.PRESENT


def test_the_newest_epoch_is_tried_first(base: Edition) -> None:
    twice = after(after(base, seed=1, new_epoch=True), seed=2, new_epoch=True)
    view = merge([twice])
    assert [one.epoch_id for one in opened(twice, by=BROWSER).unwrappers] == [e.id for e in reversed(view.epochs)]
    for epoch in view.epochs:
        assert right_to(archive_to(epoch), opened(twice, by=READER)) is Right.READ


def test_browsing_may_become_reading(base: Edition) -> None:
    named = after(base, add_people=[Person(CAROL.recipient, Right.BROWSE, label="Carol")])
    raised = after(named, add_people=[Person(CAROL.recipient)])
    assert opened(named, by=CAROL).right is Right.BROWSE
    assert opened(raised, by=CAROL).right is Right.READ
    assert Person(CAROL.recipient, label="Carol") in opened(raised).people
    beside = after(named, seed=5, new_epoch=True)
    for pair in ([raised, beside], [beside, raised]):
        # Reads where she may read already, browses where she may only browse yet.
        both = opened(*pair, by=CAROL)
        old, new = merge(pair).epochs
        assert both.right is Right.READ
        assert (right_to(archive_to(old), both), right_to(archive_to(new), both)) == (Right.READ, Right.BROWSE)
    assert right_to(archive_to(new), opened(after(raised, beside), by=CAROL)) is Right.READ
    assert merge([raised]).epochs == merge([base]).epochs


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "remove the owner": {"remove_people": [OWNER.recipient]},
    "remove a stranger": {"remove_people": [STRANGER.recipient]},
    "remove twice": {"remove_people": [READER.recipient, READER.recipient]},
    "read again": {"add_people": [Person(READER.recipient)]},
    "browse again": {"add_people": [Person(BROWSER.recipient, Right.BROWSE)]},
    "lessen": {"add_people": [Person(READER.recipient, Right.BROWSE)]},
    "owner again": {"add_people": [Person(OWNER.recipient)]},
    "twice": {"add_people": [Person(CAROL.recipient), Person(CAROL.recipient)]},
    "go and come": {"add_people": [Person(READER.recipient)], "remove_people": [READER.recipient]},
    "come as removed": {"add_people": [Person(CAROL.recipient, state=PersonState.REMOVED)]},
    "same key": {"add_people": [Person(Recipient(READER.recipient.x25519, bytes(32)))]},
    "small order": {"add_people": [Person(SMALL_ORDER)]},
    "long label": {"add_people": [Person(CAROL.recipient, label="x" * 256)]},
    "retire nobody": {"retire_hosts": [bytes(16)]},
    "short host id": {"add_hosts": [(HostRow(bytes(15), bytes(32)), bytes(32), "")]},
    "short id key": {"add_hosts": [(HostRow(bytes(16), bytes(32)), bytes(31), "")]},
    "long host label": {"add_hosts": [(HostRow(bytes(16), bytes(32)), bytes(32), "x" * 256)]},
    "host twice": {"add_hosts": [(HostRow(bytes(16), bytes([n]) * 32), bytes(32), "") for n in (1, 2)]},
    "host key twice": {"add_hosts": [(HostRow(bytes([n]) * 16, bytes(32)), bytes(32), "") for n in (1, 2)]},
    "before time": {"new_epoch": True, "now": -1},
}


@pytest.mark.parametrize("changes", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_changes_are_refused(base: Edition, changes: dict[str, Any]) -> None:
    changes = dict(changes)
    now = changes.pop("now", NOW)
    with pytest.raises(UsageError):
        editing.next_edition(opened(base), OWNER, entropy=Dice(), now_ns=now, **changes)


def test_a_removal_holds_for_good(base: Edition) -> None:
    removed = after(base, remove_people=[READER.recipient, BROWSER.recipient])
    for who in (READER, BROWSER):
        with pytest.raises(UsageError, match="needs a new identity"):
            after(removed, add_people=[Person(who.recipient)])
        with pytest.raises(UsageError):
            after(removed, remove_people=[who.recipient])
    retired, key = enrolled(base)
    retired = after(retired, retire_hosts=[key.host_id])
    with pytest.raises(UsageError):
        after(retired, retire_hosts=[key.host_id])


def test_only_the_owner_makes_editions(base: Edition) -> None:
    for keyring, who in ((opened(base), READER), (opened(base, by=READER), READER), (opened(base, by=BROWSER), OWNER)):
        with pytest.raises(UsageError):
            editing.next_edition(keyring, who, new_epoch=True, entropy=Dice(), now_ns=NOW)


def test_people_named_twice_in_the_first_edition() -> None:
    for recipients, browsers in (
        ((OWNER.recipient,), ()),
        ((READER.recipient, READER.recipient), ()),
        ((READER.recipient,), (READER.recipient,)),
        ((), (SMALL_ORDER,)),
    ):
        with pytest.raises(UsageError):
            first(recipients=recipients, browsers=browsers)


# --- Hosts --------------------------------------------------------------------------------------


def test_enrolling(base: Edition) -> None:
    edition, key = enrolled(base, label="büro")
    view = merge([base, edition])
    assert view.host(key.host_id) == HostRow(key.host_id, key.signing.verify_key.ed25519, HostState.ACTIVE)
    assert (key.vault_id, key.owner, key.label) == (view.vault_id, OWNER.recipient, "büro")
    assert (key.pin_number, key.pin_digests) == (view.number, view.digests)
    view.check_pin(key.pin_number, key.pin_digests)
    with pytest.raises(SignatureError):
        merge([base]).check_pin(key.pin_number, key.pin_digests)
    assert opened(edition).id_key(key.host_id) == key.id_key
    assert len({key.id_key, key.chunker_key, key.signing.seed}) == 3
    # The chunker key and the signing key are nobody's but the host's.
    for secret in (key.chunker_key, key.signing.seed):
        assert secret not in edition.raw


def test_a_host_that_is_retired_keeps_its_keys_for_readers(base: Edition) -> None:
    edition, key = enrolled(base)
    retired = after(edition, retire_hosts=[key.host_id])
    assert merge([retired]).host(key.host_id).state is HostState.RETIRED
    assert opened(retired, by=READER).id_key(key.host_id) == key.id_key
    assert opened(retired, by=BROWSER).label(key.host_id) == "laptop"


def test_a_host_with_an_impossible_label_is_not_enrolled(base: Edition) -> None:
    for label in ("x" * 256, "\udce9"):
        with pytest.raises(UsageError):
            enrolled(base, label=label)


# --- Two changes at once ------------------------------------------------------------------------


def test_two_hosts_enrolled_at_once(base: Edition) -> None:
    (left, one), (right, two) = enrolled(base, label="one", seed=31), enrolled(base, label="two", seed=32)
    for who in (OWNER, READER, BROWSER):
        keyring = opened(left, right, base, by=who)
        assert (keyring.label(one.host_id), keyring.label(two.host_id)) == ("one", "two")
        assert (keyring.id_key(one.host_id) == one.id_key) is (keyring.id_key(two.host_id) == two.id_key)
    assert opened(left, right).id_key(two.host_id) == two.id_key
    for key in (one, two):
        merge([left, right]).check_pin(key.pin_number, key.pin_digests)
    joined = after(left, right)
    assert opened(joined, by=BROWSER).label(two.host_id) == "two"
    assert merge([joined]).epochs == merge([base]).epochs


def test_a_grant_beside_an_enrolment(base: Edition) -> None:
    grant = after(base, add_people=[Person(CAROL.recipient)])
    host, key = enrolled(base)
    carol = opened(grant, host, by=CAROL)
    # What only the other head holds comes to Carol with the next edition.
    assert carol.right is Right.READ
    assert carol.id_key(key.host_id) is None and carol.label(key.host_id) == key.host_id.hex()
    joined = after(grant, host)
    assert opened(joined, by=CAROL).id_key(key.host_id) == key.id_key
    assert right_to(archive_to(merge([base]).current_epoch), carol) is Right.READ


def test_a_removal_beside_a_grant_wins(base: Edition) -> None:
    removal = after(base, seed=1, remove_people=[BROWSER.recipient])
    grant = after(base, seed=2, add_people=[Person(BROWSER.recipient), Person(CAROL.recipient)])
    for pair in ([removal, grant], [grant, removal]):
        people = {one.recipient: one for one in opened(*pair).people}
        assert people[BROWSER.recipient] == Person(BROWSER.recipient, Right.READ, PersonState.REMOVED)
        assert people[CAROL.recipient].state is PersonState.PRESENT
    view = merge([removal, grant])
    assert right_to(archive_to(view.current_epoch), opened(removal, grant, by=BROWSER)) is None
    joined = after(removal, grant)
    with pytest.raises(NoMatchingKey):
        opened(joined, by=BROWSER)
    assert right_to(archive_to(merge([joined]).current_epoch), opened(joined, by=CAROL)) is Right.READ
    assert merge([joined]).epochs == view.epochs  # the current epoch was never Browser's


@pytest.mark.parametrize("seed", range(4))
def test_an_epoch_that_a_removed_person_was_given_by_the_other_head_ends(base: Edition, seed: int) -> None:
    removal = after(base, seed=10 + seed, remove_people=[READER.recipient])
    other = after(base, seed=20 + seed, new_epoch=True)
    more = after(other, seed=40 + seed, new_epoch=True)
    for beside in (other, more):
        view = merge([removal, beside])
        exposed = right_to(archive_to(view.current_epoch), opened(removal, beside, by=READER)) is not None
        assert exposed is (view.current_epoch in beside.epochs)
        joined = after(removal, beside, seed=50)
        assert (merge([joined]).current_epoch not in view.epochs) is exposed
        with pytest.raises(NoMatchingKey):
            opened(joined, by=READER)
        knows = opened(removal, beside, by=READER)
        assert right_to(archive_to(merge([joined]).current_epoch), knows) is None


def test_of_two_labels_the_later_one_counts(base: Edition) -> None:
    left = after(base, seed=1, add_people=[Person(CAROL.recipient, label="left")])
    right = after(base, seed=2, add_people=[Person(CAROL.recipient, label="right")])
    later = max((left, right), key=lambda e: e.digest)
    expected = "left" if later is left else "right"
    for pair in ([left, right], [right, left]):
        assert {one.label for one in opened(*pair).people if one.recipient == CAROL.recipient} == {expected}
    for one, other, seed in itertools.product((left, right), (left, right), range(3)):
        # By number first: whatever its digest is, the second edition after one is later than the other.
        newer = after(one, seed=30 + seed, new_epoch=True)
        (label,) = {p.label for p in opened(newer, other).people if p.recipient == CAROL.recipient}
        assert label == ("left" if one is left else "right")


@settings(max_examples=15)
@given(st.data())
def test_people_of_any_history_are_like_those_of_a_model(data: st.DataObject) -> None:
    """State and right only go one way, so all orders of merging lead to the same people."""
    crowd = [READER, CAROL, DAVE]
    start = first(recipients=(READER.recipient,), browsers=(CAROL.recipient, DAVE.recipient))
    history = [start]
    model: dict[bytes, dict[Recipient, Person]] = {
        start.digest: {one.recipient: one for one in opened(start).people},
    }
    for number in range(data.draw(st.integers(1, 5))):
        seen = data.draw(st.lists(st.sampled_from(history), min_size=1, max_size=2))
        people = union(model, merge(seen))
        who = data.draw(st.sampled_from(crowd)).recipient
        removes = data.draw(st.booleans())
        if people[who].state is PersonState.REMOVED or not (removes or people[who].right is Right.BROWSE):
            change: dict[str, Any] = {"new_epoch": True}
        elif removes:
            change = {"remove_people": [who]}
            people[who] = replace(people[who], state=PersonState.REMOVED)
        else:
            change = {"add_people": [Person(who)]}
            people[who] = replace(people[who], right=Right.READ)
        history.append(after(*seen, seed=60 + number, **change))
        model[history[-1].digest] = people
    keyring = opened(*data.draw(st.permutations(history)))
    expected = union(model, keyring.view)
    assert {one.recipient: one for one in keyring.people} == expected
    joined = after(*history, seed=70, new_epoch=True)
    current = archive_to(merge([joined]).current_epoch)
    for person in crowd:
        if expected[person.recipient].state is PersonState.REMOVED:
            with pytest.raises(NoMatchingKey):
                opened(joined, by=person)
        else:
            assert right_to(current, opened(joined, by=person)) is expected[person.recipient].right


def union(model: dict[bytes, dict[Recipient, Person]], view: Any) -> dict[Recipient, Person]:
    out: dict[Recipient, Person] = {}
    for digest in view.digests:
        for recipient, person in model[digest].items():
            other = out.get(recipient, person)
            out[recipient] = replace(person, right=min(person.right, other.right), state=max(person.state, other.state))
    return out


def test_stanzas_and_boxes_are_those_of_the_specification(base: Edition) -> None:
    edition, key = enrolled(base)
    place = edition.vault_id + (2).to_bytes(8, "little")
    for who, right, box in ((READER, 1, edition.record.read_box), (BROWSER, 2, edition.record.browse_box)):
        plains = []
        for stated, body in edition.record.stanzas:
            if stated != right:
                continue
            info = b"rozenfmt v0 edition stanza" + bytes([right]) + place
            with contextlib.suppress(NoMatchingKey):
                wrapped = crypto.hpke_open(who._x25519, info, body)
                aad = b"rozenfmt v0 edition box" + bytes([right]) + place
                plains.append(
                    crypto_aead_xchacha20poly1305_ietf_decrypt(box[24:], aad, box[:24], wrapped),
                )
        (plain,) = (cbor.loads(data) for data in plains)
        epoch = edition.epochs[0]
        ((epoch_id, *private),) = plain[1]
        assert epoch_id == epoch.id
        public = [epoch.read_public, epoch.browse_public][right - 1 :]
        assert [crypto.x25519_public(one) for one in private] == public
        assert plain[2] == [[key.host_id, key.id_key, "laptop"] if right == 1 else [key.host_id, "laptop"]]
        assert (3 in plain) is (right == 1)
    assert sorted(row[1:] for row in opened_people(edition)) == [[1, 1, ""], [1, 1, ""], [2, 1, ""]]


def opened_people(edition: Edition) -> list[Any]:
    rows: list[Any] = []

    def look(box: Any) -> Any:
        rows.extend(list(row) for row in box.people)
        return box

    reboxed(edition, READER, look)
    return rows


# --- Boxes that no honest owner makes -----------------------------------------------------------


def swap_keys(box: Any) -> Any:
    return replace(box, epochs=tuple((id_, *reversed(keys)) for id_, *keys in box.epochs))


WRONG_FOR_READERS: dict[str, Callable[[Any], Any]] = {
    "keys swapped": swap_keys,
    "read key wrong": lambda box: replace(box, epochs=((box.epochs[0][0], bytes(32), box.epochs[0][2]),)),
    "browse key wrong": lambda box: replace(box, epochs=((*box.epochs[0][:2], bytes(32)),)),
    "epoch missing": lambda box: replace(box, epochs=()),
    "epoch twice": lambda box: replace(box, epochs=box.epochs * 2),
    "epoch unknown": lambda box: replace(box, epochs=((b"\xff" * 8, *box.epochs[0][1:]),)),
    "host missing": lambda box: replace(box, hosts=box.hosts[:1]),
    "host unknown": lambda box: replace(box, hosts=(*box.hosts, (b"\xff" * 16, bytes(32), "x"))),
    "hosts in another order": lambda box: replace(box, hosts=box.hosts[::-1]),
    "people in another order": lambda box: replace(box, people=box.people[::-1]),
    "person twice": lambda box: replace(box, people=tuple(sorted(box.people * 2))),
    "no owner": lambda box: replace(box, people=tuple(p for p in box.people if p[0][:32] != OWNER.recipient.x25519)),
    "owner browses": lambda box: replace(
        box, people=tuple((p[0], 2 if p[0][:32] == OWNER.recipient.x25519 else p[1], *p[2:]) for p in box.people)
    ),
    "owner removed": lambda box: replace(
        box, people=tuple((*p[:2], 2 if p[0][:32] == OWNER.recipient.x25519 else p[2], p[3]) for p in box.people)
    ),
    "another right": lambda box: replace(box, people=((box.people[0][0], 3, 1, ""), *box.people[1:])),
    "no map": lambda box: b"\x01",
    "no CBOR": lambda box: b"\xff",
    "empty": lambda box: b"",
    "key missing": lambda box: cbor.dumps({1: box.epochs, 2: box.hosts}),
}
WRONG_FOR_BROWSERS: dict[str, Callable[[Any], Any]] = {
    name: change
    for name, change in WRONG_FOR_READERS.items()
    if name
    in ("epoch missing", "epoch twice", "host missing", "host unknown", "hosts in another order", "no map", "empty")
} | {
    "browse key wrong": lambda box: replace(box, epochs=((box.epochs[0][0], bytes(32)),)),
    "key missing": lambda box: cbor.dumps({1: box.epochs}),
}


@pytest.fixture(scope="module")
def two_hosts(base: Edition) -> Edition:
    return enrolled(enrolled(base, seed=31)[0], seed=32)[0]


@pytest.mark.parametrize("change", WRONG_FOR_READERS.values(), ids=WRONG_FOR_READERS.keys())
def test_a_read_box_that_contradicts_the_record(two_hosts: Edition, change: Callable[[Any], Any]) -> None:
    wrong = reboxed(two_hosts, READER, change)
    for who in (OWNER, READER):
        with pytest.raises(KeyFailure):
            opened(wrong, by=who)
    assert opened(wrong, by=BROWSER).right is Right.BROWSE  # the other box is whole


@pytest.mark.parametrize("change", WRONG_FOR_BROWSERS.values(), ids=WRONG_FOR_BROWSERS.keys())
def test_a_browse_box_that_contradicts_the_record(two_hosts: Edition, change: Callable[[Any], Any]) -> None:
    wrong = reboxed(two_hosts, BROWSER, change)
    with pytest.raises(KeyFailure):
        opened(wrong, by=BROWSER)
    assert opened(wrong, by=READER).right is Right.READ


def test_a_box_that_is_not_changed_opens(two_hosts: Edition) -> None:
    # What the two tests above change is all that is wrong there.
    for who in (READER, BROWSER):
        assert opened(reboxed(two_hosts, who, lambda box: box), by=who).right is opened(two_hosts, by=who).right


def test_a_label_that_is_too_long(two_hosts: Edition) -> None:
    wrong = reboxed(two_hosts, BROWSER, lambda box: replace(box, hosts=((box.hosts[0][0], "x" * 256), *box.hosts[1:])))
    with pytest.raises(LimitError):
        opened(wrong, by=BROWSER)


def test_boxes_and_stanzas_hold_in_their_place_only(base: Edition) -> None:
    other = after(base, new_epoch=True)
    for name in ("read_box", "browse_box"):
        for box in (getattr(other.record, name), b"", bytes(39)):
            change: dict[str, Any] = {name: box}
            moved = parse_edition(altered(base, **change))
            with pytest.raises(KeyFailure):
                opened(moved, by=READER if name == "read_box" else BROWSER)
    with pytest.raises(NoMatchingKey):
        opened(parse_edition(altered(base, stanzas=other.record.stanzas)))
    # A browse stanza does not become a read stanza by saying so.
    raised = tuple((1, body) for _, body in base.record.stanzas)
    with pytest.raises(NoMatchingKey):
        opened(parse_edition(altered(base, stanzas=raised)), by=BROWSER)
    with pytest.raises(NoMatchingKey):
        opened(parse_edition(altered(base, vault_id=bytes(16))), by=READER)


def test_a_stanza_of_small_order(base: Edition) -> None:
    wrong = parse_edition(altered(base, stanzas=((1, bytes(80)), *base.record.stanzas)))
    with pytest.raises(HeaderError):
        opened(wrong)


def test_two_id_keys_of_one_host(two_hosts: Edition) -> None:
    def change(box: Any) -> Any:
        return replace(box, hosts=((box.hosts[0][0], bytes(32), "other"), *box.hosts[1:]))

    with pytest.raises(KeyFailure):
        opened(two_hosts, reboxed(two_hosts, READER, change), by=READER)


# --- Storage ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def storage(folder: Path) -> Storage:
    return open_storage(folder)


def test_stored_and_loaded(storage: Storage, base: Edition) -> None:
    name = store_edition(storage, base.raw, entropy=Dice())
    assert parse_edition_name(name) == (1, Dice()(8))
    assert [info.name for info in storage.list()] == [name]
    said: list[str] = []
    for view in (
        load_view(storage, owner=OWNER.recipient, report=said.append),
        load_view(storage, owner=None, identities=[STRANGER, OWNER], report=said.append),
        load_view(storage, owner=OWNER.recipient, identities=[STRANGER], report=said.append),
        load_view(storage, owner=OWNER.recipient, vault_id=base.vault_id, pin=(1, (base.digest,)), report=said.append),
    ):
        assert view == merge([base])
    assert said == []
    assert store_edition(storage, base.raw) != name  # a random name, so nothing is ever overwritten


def test_many_editions(storage: Storage, base: Edition) -> None:
    history = [base]
    for number in range(12):
        history.append(after(history[-1], seed=number, new_epoch=True))
    for edition in history:
        store_edition(storage, edition.raw)
    view = load_view(storage, owner=OWNER.recipient)
    assert view == merge(history)
    assert view.number == 13


def test_what_is_stored_is_valid(storage: Storage, base: Edition) -> None:
    with pytest.raises(ArchiveError):
        store_edition(storage, base.raw[:-1])
    assert list(storage.list()) == []


def test_no_edition_is_overwritten(storage: Storage, folder: Path, base: Edition) -> None:
    name = store_edition(storage, base.raw, entropy=Dice())
    with pytest.raises(ConflictError):
        store_edition(storage, altered(base, made=1), entropy=Dice())
    assert (folder / name).read_bytes() == base.raw

    class Broken(Failing):
        def create(self, name: str, **options: Any) -> Any:
            upload = storage.create(name, **options)

            class Short:
                write, discard = upload.write, upload.discard

                def commit(self) -> None:
                    msg = "no space"
                    raise StorageError(msg)

            return Short()

    broken: Any = Broken(storage, set())
    with pytest.raises(StorageError):
        store_edition(broken, base.raw)
    assert [path.name for path in (folder / "editions").iterdir()] == [name.removeprefix("editions/")]


def test_no_vault_here(storage: Storage, folder: Path) -> None:
    with pytest.raises(StorageError, match="no vault here"):
        load_view(storage, owner=OWNER.recipient)
    put(folder, "data/something", b"x")
    with pytest.raises(StorageError, match="no vault here"):
        load_view(storage, owner=OWNER.recipient)


def test_somebody_must_say_whose_vault_it_is(storage: Storage, base: Edition) -> None:
    store_edition(storage, base.raw)
    for identities in ([], [READER], [READER, STRANGER]):
        with pytest.raises(UsageError, match="owner="):
            load_view(storage, owner=None, identities=identities)
    with pytest.raises(HeaderError):
        load_view(storage, owner=STRANGER.recipient)


def put(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_bad_objects_are_named_and_passed_over(storage: Storage, folder: Path, base: Edition) -> None:
    theirs = STRANGER.recipient.x25519 + STRANGER.recipient.ed25519
    bad = {
        1: b"",
        2: base.raw[:-1],
        3: base.raw[:-1] + bytes([base.raw[-1] ^ 1]),
        4: altered(base, by=STRANGER, owner=theirs),
        5: bytes(2_000_000),
        6: altered(base, by=STRANGER, hosts=((bytes(16), STRANGER.recipient.ed25519, 1),)),
        # A stranger's word that the vault is newer stops nobody.
        7: sign(cbor.dumps({1: base.vault_id, 2: [9, 9], 3: [], 6: theirs}), by=STRANGER, vault_id=base.vault_id),
    }
    names = [edition_name(number, bytes(8)) for number in bad]
    for name, data in zip(names, bad.values(), strict=True):
        put(folder, name, data)
    for name in ("editions/README", "editions/00000001-0000000000000000.tmp"):
        put(folder, name, b"x")
    with pytest.raises(HeaderError):
        load_view(storage, owner=OWNER.recipient)
    with pytest.raises(UsageError):
        load_view(storage, owner=None, identities=[OWNER])  # some of them are other people's vaults
    good = store_edition(storage, base.raw)
    for owner in (OWNER.recipient, None):
        said: list[str] = []
        view = load_view(storage, owner=owner, identities=[OWNER, READER], report=said.append)
        assert view == merge([base])
        for name in (*names, "editions/README", "editions/00000001-0000000000000000.tmp"):
            assert sum(name in line for line in said) >= 1
        assert not any(good in line for line in said)


def test_what_only_a_newer_version_understands_stops_the_reader(storage: Storage, folder: Path, base: Edition) -> None:
    store_edition(storage, base.raw)
    body = cbor.dumps({1: base.vault_id, 2: [0, 1], 3: [77], 6: OWNER.recipient.x25519 + OWNER.recipient.ed25519})
    put(folder, edition_name(2, bytes(8)), sign(body, vault_id=base.vault_id))
    with pytest.raises(UnsupportedError) as caught:
        load_view(storage, owner=OWNER.recipient)
    assert caught.value.object == edition_name(2, bytes(8))


def test_another_vault_of_the_same_owner(storage: Storage, base: Edition) -> None:
    store_edition(storage, base.raw)
    store_edition(storage, first(seed=9).raw)
    with pytest.raises(SignatureError):
        load_view(storage, owner=OWNER.recipient)
    said: list[str] = []
    assert load_view(storage, owner=OWNER.recipient, vault_id=base.vault_id, report=said.append) == merge([base])
    assert len(said) == 1


def test_a_rolled_back_storage(storage: Storage, base: Edition) -> None:
    edition, key = enrolled(base)
    store_edition(storage, base.raw)
    name = store_edition(storage, edition.raw)
    pin = (key.pin_number, key.pin_digests)
    assert load_view(storage, owner=OWNER.recipient, pin=pin).number == 2
    storage.delete(name)
    with pytest.raises(SignatureError):
        load_view(storage, owner=OWNER.recipient, pin=pin)
    assert load_view(storage, owner=OWNER.recipient).number == 1


def test_a_lost_parent_and_a_renamed_edition_are_reported(storage: Storage, folder: Path, base: Edition) -> None:
    edition, _ = enrolled(base)
    put(folder, edition_name(7, bytes(8)), edition.raw)
    said: list[str] = []
    view = load_view(storage, owner=OWNER.recipient, report=said.append)
    assert view.heads == (edition,)
    assert any(base.digest.hex() in line for line in said)
    assert any(edition_name(7, bytes(8)) in line for line in said)


class Failing:
    """A storage from which some objects cannot be read."""

    def __init__(self, storage: Storage, failing: set[str]) -> None:
        self._storage = storage
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def read(self, name: str, start: int, length: int) -> bytes:
        if name in self._failing:
            msg = f"cannot read {name}"
            raise StorageError(msg, object=name)
        return self._storage.read(name, start, length)


def test_an_edition_that_cannot_be_read(storage: Storage, base: Edition) -> None:
    edition, _ = enrolled(base)
    one, two = store_edition(storage, base.raw), store_edition(storage, edition.raw)
    said: list[str] = []
    some: Any = Failing(storage, {one})
    assert load_view(some, owner=OWNER.recipient, report=said.append).heads == (edition,)
    assert any(one in line for line in said)
    none: Any = Failing(storage, {one, two})
    with pytest.raises(StorageError):
        load_view(none, owner=OWNER.recipient)


def test_an_object_that_is_too_long_is_not_even_read(storage: Storage, folder: Path, base: Edition) -> None:
    store_edition(storage, base.raw)
    long = edition_name(2, bytes(8))
    put(folder, long, bytes(MAX_OBJECT + 1))
    unread: Any = Failing(storage, {long})
    said: list[str] = []
    assert load_view(unread, owner=OWNER.recipient, report=said.append) == merge([base])
    assert len(said) == 1 and "at most" in said[0] and "cannot read" not in said[0]


def test_an_epoch_key_is_an_unwrapper(base: Edition) -> None:
    keys: tuple[EpochKey, ...] = opened(base, by=Identity(READER.seed)).unwrappers
    assert unlock(archive_to(merge([base]).current_epoch), keys) is not None
