"""Who may do what: browse and read apart, passphrases, signers, forgers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import rozenfmt as rz
from rozenfmt.format import crypto, header, records
from rozenfmt.format.crypto import Keys
from rozenfmt.format.header import build_header, parse_header
from rozenfmt.format.registry import Right, Suite

from .helpers import MIB, Crafter, blocks_of, noise, write_archive

CHEAP = rz.Argon2Cost(1, 8)


@pytest.fixture(scope="module")
def browser() -> rz.Identity:
    return rz.Identity.generate()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "src"
    (source / "dir").mkdir(parents=True)
    (source / "dir/small").write_bytes(b"contents nobody may see" * 10)
    (source / "big").write_bytes(noise(9 * MIB))
    os.setxattr(source / "big", "user.colour", b"secret attribute")
    (source / "link").symlink_to("dir")
    return source


@pytest.fixture
def archive(tmp_path: Path, tree: Path, me: rz.Identity, browser: rz.Identity) -> Path:
    return write_archive(tmp_path / "a", me.recipient, tree, browsers=[browser.recipient])


def test_browse_lists_and_checks_but_never_reads(
    tmp_path: Path, archive: Path, tree: Path, browser: rz.Identity
) -> None:
    report = rz.check(archive, identities=[browser])
    assert (report.level, report.entries) == ("browse", 5)
    assert report.content_bytes == 9 * MIB + 230
    with rz.open(archive, identities=[browser]) as opened:
        assert opened.right is Right.BROWSE
        assert {entry.path: entry.size for entry in opened if entry.kind is rz.Kind.FILE} == {
            "src/big": 9 * MIB,
            "src/dir/small": 230,
        }
        assert opened.entry("src/link").target == "dir"
        for refused in (
            lambda: opened.open("src/big"),
            lambda: opened.read("src/dir/small"),
            lambda: opened.open(opened.entry("src/dir/small")),
            lambda: opened.xattrs(opened.entry("src/big")),
            lambda: opened.extract(tmp_path / "out"),
            lambda: opened.extract(tmp_path / "out", paths=["src/dir"]),
            lambda: rz.compare(opened, tree),
        ):
            with pytest.raises(rz.NoMatchingKey):
                refused()
    with pytest.raises(rz.NoMatchingKey):
        rz.salvage(archive, tmp_path / "out", identities=[browser])
    assert not (tmp_path / "out").exists()


def test_no_key_and_wrong_key(tmp_path: Path, archive: Path, me: rz.Identity) -> None:
    assert rz.check(archive).level == "stored"
    other = rz.Identity.generate()
    for refused in (
        lambda: rz.open(archive, identities=[other]),
        lambda: rz.open(archive, identities=[rz.Passphrase("no")]),
        lambda: rz.check(archive, identities=[other]),
        lambda: rz.salvage(archive, tmp_path / "out", identities=[other]),
    ):
        with pytest.raises(rz.NoMatchingKey):
            refused()
    with pytest.raises(rz.UsageError):
        rz.open(archive)
    with pytest.raises(rz.UsageError):
        rz.salvage(archive, tmp_path / "out")
    assert rz.check(archive, identities=[other, me]).level == "contents"
    with rz.open(archive, identities=[rz.Passphrase("no"), other, me]) as opened:
        assert opened.right is Right.READ


def test_passphrase(tmp_path: Path, tree: Path) -> None:
    words = rz.Passphrase("corre\u0301ct horse", cost=CHEAP)
    path = tmp_path / "p"
    with rz.create(path, recipients=[words]) as writer:
        writer.add_tree(tree)
    same = rz.Passphrase("corr\u00e9ct horse")
    assert rz.check(path, identities=[same]).level == "contents"
    with rz.open(path, identities=[same]) as opened:
        assert not rz.compare(opened, tree)
    wrong = rz.Passphrase("correct horse")
    for refused in (
        lambda: rz.open(path, identities=[wrong]),
        lambda: rz.check(path, identities=[wrong]),
        lambda: rz.salvage(path, tmp_path / "out", identities=[wrong]),
    ):
        with pytest.raises(rz.WrongPassphrase):
            refused()
    with pytest.raises(rz.NoMatchingKey) as caught:
        rz.open(path, identities=[rz.Identity.generate()])
    assert not isinstance(caught.value, rz.WrongPassphrase)


def _replace_stanza(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the first stanza in both copies of the header, with all hashes that anybody can make."""
    data = path.read_bytes()
    old = parse_header(data)
    assert old.record.stanzas is not None
    kind, right, body = old.record.stanzas[0]
    record = replace(old.record, stanzas=((kind, right, change(body)), *old.record.stanzas[1:]))
    encoded = records.encode(record)
    section = bytearray(old.section)
    assert len(encoded) == len(section) - header.PREAMBLE_SIZE - 64
    section[header.PREAMBLE_SIZE : -64] = encoded
    section[16:48] = crypto.digest(bytes(section[:16]), bytes(section[48:]))
    foot = blocks_of(data)[-1]
    block = bytearray(foot.data.replace(old.section, bytes(section)))
    a = int.from_bytes(block[40:44], "little")
    block[52 + a : 84 + a] = crypto.digest(bytes(block[: 52 + a]))
    block[-32:] = crypto.digest(bytes(block[:-32]))
    tail = bytearray(data[-64:])
    tail[24:56] = crypto.digest(bytes(tail[:24]), bytes(section[16:48]))
    path.write_bytes(bytes(section) + data[len(old.section) : foot.offset] + bytes(block) + bytes(tail))


def test_hostile_cost_is_refused_before_it_is_paid(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p"
    with rz.create(path, recipients=[rz.Passphrase("x", cost=CHEAP)]) as writer:
        writer.add_tree(tree)
    for passes, kib in ((2**32 - 1, 8), (1, 2**32 - 1), (17, 8), (1, 1_048_577), (0, 8), (1, 7)):
        copy = tmp_path / f"p-{passes}-{kib}"
        copy.write_bytes(path.read_bytes())
        cost = passes.to_bytes(4, "little") + kib.to_bytes(4, "little")
        _replace_stanza(copy, lambda body, cost=cost: body[:16] + cost + body[24:])  # type: ignore[misc]
        with monkeypatch.context() as patch:
            patch.setattr(crypto, "argon2id", lambda *_: pytest.fail("it was computed"))
            for refused in (rz.open, rz.check):
                with pytest.raises(rz.LimitError):
                    refused(copy, identities=[rz.Passphrase("x")])
            with pytest.raises(rz.LimitError):
                rz.salvage(copy, tmp_path / "out", identities=[rz.Passphrase("x")])
    with pytest.raises(rz.LimitError):
        rz.open(path, identities=[rz.Passphrase("x", limit=rz.Argon2Cost(1, 7))])


def test_plain_is_refused_with_a_key(tmp_path: Path, tree: Path, me: rz.Identity) -> None:
    path = tmp_path / "plain"
    with rz.create(path, plain=True) as writer:
        writer.add_tree(tree)
    for refused in (
        lambda **more: rz.open(path, identities=[me], **more).close(),
        lambda **more: rz.check(path, identities=[me], **more),
        lambda **more: rz.salvage(path, tmp_path / "out", identities=[me], **more),
    ):
        with pytest.raises(rz.UnsupportedError):
            refused()
        refused(allow_plain=True)
    assert rz.check(path).level == "contents"


def test_signatures(tmp_path: Path, tree: Path, me: rz.Identity, archive: Path) -> None:
    signer, other = rz.SigningKey.generate(), rz.SigningKey.generate()
    signed = write_archive(tmp_path / "signed", me.recipient, tree, signer=signer)
    assert rz.check(signed).signers == [signer.verify_key.ed25519]
    rz.check(signed, identities=[me], verify_key=signer.verify_key)
    with rz.open(signed, identities=[me], verify_key=signer.verify_key) as opened:
        assert opened.signer == signer.verify_key
    for path, key in ((signed, other.verify_key), (archive, signer.verify_key)):
        with pytest.raises(rz.SignatureError):
            rz.open(path, identities=[me], verify_key=key)
        with pytest.raises(rz.SignatureError):
            rz.check(path, identities=[me], verify_key=key)
        with pytest.raises(rz.SignatureError):
            rz.check(path, verify_key=key)
    data = bytearray(signed.read_bytes())
    foot = blocks_of(bytes(data))[-1]
    at = foot.offset + len(foot.data) - 32 - 1  # the signature's last byte
    data[at] ^= 1
    data[foot.offset + len(foot.data) - 32 : foot.offset + len(foot.data)] = crypto.digest(
        bytes(data[foot.offset : foot.offset + len(foot.data) - 32])
    )
    signed.write_bytes(data)
    for verify_key in (None, signer.verify_key):
        with pytest.raises(rz.SignatureError):
            rz.open(signed, identities=[me], verify_key=verify_key)
        with pytest.raises(rz.SignatureError):
            rz.check(signed, identities=[me], verify_key=verify_key)


def test_forger_with_the_public_recipient_only(tmp_path: Path, tree: Path, me: rz.Identity) -> None:
    """Anybody may write to a recipient; nobody else can sign."""
    trusted, forger = rz.SigningKey.generate(), rz.SigningKey.generate()
    public = rz.Recipient.parse(str(me.recipient))
    for number, signer in enumerate((None, forger)):
        path = write_archive(tmp_path / str(number), public, tree, signer=signer)
        with rz.open(path, identities=[me]) as opened:
            assert not rz.compare(opened, tree)
        for refused in (
            lambda path=path: rz.open(path, identities=[me], verify_key=trusted.verify_key),
            lambda path=path: rz.check(path, identities=[me], verify_key=trusted.verify_key),
        ):
            with pytest.raises(rz.SignatureError):
                refused()
    # The trusted name in the header, the forger's key below the signature.
    good = write_archive(tmp_path / "good", public, tree, signer=trusted)
    bad = write_archive(tmp_path / "bad", public, tree, signer=forger)
    data = bad.read_bytes()
    named = parse_header(good.read_bytes())
    (tmp_path / "mixed").write_bytes(named.section + data[len(parse_header(data).section) :])
    with pytest.raises(rz.SignatureError):
        rz.open(tmp_path / "mixed", identities=[me], verify_key=trusted.verify_key)
    with pytest.raises(rz.ArchiveError):
        rz.check(tmp_path / "mixed", identities=[me], verify_key=trusted.verify_key)


def _browse_forgery(data: bytes, index_key: bytes, **claims: bytes) -> bytes:
    """An archive as somebody writes it who holds I and not S: everything that needs S is guessed."""
    old = parse_header(data)
    crafter = Crafter.__new__(Crafter)
    keys = Keys.from_index_key(Suite(old.record.suite), old.archive_id, index_key)
    wrong = Keys.from_secret(Suite(old.record.suite), old.archive_id, bytes(32))
    # Right keys for I, wrong ones for S; a writer needs all of them.
    mixed = replace(
        keys,
        secret=bytes(32),
        seal_content=wrong.seal_content,
        header_mac_secret=claims.get("header_mac", wrong.header_mac_secret),
        foot_mac_secret=wrong.foot_mac_secret,
        block_mac=wrong.block_mac,
        id_key=wrong.id_key,
    )
    from rozenfmt.format.encoder import Encoder

    crafter.recipient, crafter.archive_id, crafter.secret = None, old.archive_id, bytes(32)
    crafter.keys, crafter.out = mixed, []
    new = build_header(old.record, mixed)
    crafter.encoder = Encoder(new, mixed, entropy=os.urandom)
    crafter.encoder.begin()
    # The first header section is copied, MAC and all: it is that of the real archive.
    crafter.encoder.header = old
    crafter.encoder._chain = old.digest
    crafter.out.append(old.section)
    entry = crafter.file(b"forged", b"planted content")
    root = crafter.directory(b"", [entry])
    return crafter.finish(root, (1, len(b"planted content")))


def test_forger_with_the_browse_key(tmp_path: Path, tree: Path, me: rz.Identity, browser: rz.Identity) -> None:
    """Whoever may browse can rewrite names for other browsers, but nothing that a reader accepts."""
    path = write_archive(tmp_path / "a", me.recipient, tree, browsers=[browser.recipient])
    data = path.read_bytes()
    with rz.open(path, identities=[browser]) as opened:
        index_key = opened.source.keys.index_key  # type: ignore[union-attr]
    forged = tmp_path / "forged"
    forged.write_bytes(_browse_forgery(data, index_key))
    rz.check(forged)  # hashes are right: anybody can make those
    with rz.open(forged, identities=[browser]) as opened:
        assert [entry.path for entry in opened] == ["forged"]
    with pytest.raises(rz.ArchiveError):
        rz.open(forged, identities=[me])
    with pytest.raises(rz.ArchiveError):
        rz.check(forged, identities=[me])
    report = rz.salvage(forged, tmp_path / "out", identities=[me])
    assert (report.files, report.lost_found) == (0, 0)
    # One block only, sealed under I again, in an archive that is whole otherwise.
    keys = Keys.from_index_key(parse_header(data).suite, parse_header(data).archive_id, index_key)
    for block in blocks_of(data):
        if block.type in (b"TREE", b"FEND", b"FHDR", b"INDX"):
            changed = bytearray(block.data)
            a = int.from_bytes(changed[40:44], "little")
            assert keys.seal_index
            changed[-64:-32] = bytes(32)  # the block's MAC
            changed[-32:] = crypto.digest(bytes(changed[:-32]))
            assert a
            forged.write_bytes(data[: block.offset] + bytes(changed) + data[block.offset + len(changed) :])
            with pytest.raises(rz.ArchiveError):
                rz.check(forged, identities=[me])
            report = rz.salvage(forged, tmp_path / f"out-{block.offset}", identities=[me])
            sequence = int.from_bytes(block.data[32:40], "little")
            assert (sequence, sequence) in report.missing or block.type == b"INDX"


def test_two_readers_and_a_browser(tmp_path: Path, tree: Path) -> None:
    people = [rz.Identity.generate() for _ in range(3)]
    path = tmp_path / "a"
    with rz.create(
        path, recipients=[people[0].recipient, people[1].recipient], browsers=[people[2].recipient]
    ) as writer:
        writer.add_tree(tree)
    for person, right in zip(people, (Right.READ, Right.READ, Right.BROWSE), strict=True):
        with rz.open(path, identities=[person]) as opened:
            assert opened.right is right
    with rz.open(path, identities=[people[2], people[1]]) as opened:
        assert opened.right is Right.READ


def test_names_do_not_stand_in_the_archive(tmp_path: Path, tree: Path, me: rz.Identity) -> None:
    data = write_archive(tmp_path / "a", me.recipient, tree, compression="none").read_bytes()
    for secret in (b"small", b"contents nobody", b"user.colour", b"secret attribute"):
        assert secret not in data
