"""Archives of kinds 1 and 2 with one fault each; the good ones are in ``positive``."""

from __future__ import annotations

from typing import Any

from rozenfmt.format import nodes
from rozenfmt.format.nodes import Entry, Kind
from rozenfmt.format.varint import encode_column
from spec.vectors.maker import BROWSER, HOST_ID_KEY, Hook, Maker
from spec.vectors.negative import bad, drop, edit, flip, put, row
from spec.vectors.positive import BROWSE, VAULT, VECTORS, Other, Vector, data, metadata, of, positive, small

DATA: dict[str, Any] = {"kind": 1, "id_key": HOST_ID_KEY, "signed": True}


def everyone(name: str, description: str, hooks: dict[str, Hook], failure: str = "block", clause: str = "5") -> None:
    """A fault of a metadata archive that every reader finds."""
    bad(
        f"metadata-{name}",
        failure,
        failure,
        "PACK:0" if name == "content" else "end",  # nothing else in such an archive is released
        f"vault {clause}",
        description,
        hooks,
        base=metadata,
        **_of(failure),
    )


def _of(failure: str, browse: str | None = None) -> dict[str, Any]:
    """What goes with a fault that one finds behind the header."""
    other = Other(failure if browse is None else browse, [BROWSER], right="browse")
    return {"vector": {"others": [other], "right": "read"}, **VAULT}


def keyed(
    name: str,
    clause: str,
    description: str,
    hooks: dict[str, Hook],
    failure: str = "block",
    *,
    browse: str | None = None,
    **more: Any,
) -> None:
    """A fault of a metadata archive that a reader with a key finds; with I too, unless it says otherwise."""
    options = {"base": metadata, "stop_keyless": "end", **_of(failure, browse), **more}
    bad(f"metadata-{name}", failure, "success", "end", f"vault {clause}", description, hooks, **options)


# --- the header ----------------------------------------------------------------------------------

for _kind, _base in ((1, data), (2, metadata)):
    bad(
        f"unsupported-id-key-{_kind}",
        "unsupported",
        "unsupported",
        "start",
        "3",
        f"id key 2 in kind {_kind}",
        {"header": put(11, 2)},
        base=_base,
        kind=_kind,
        id_key=HOST_ID_KEY,
        signed=True,
        browse="unsupported",
    )

# --- the order of blocks -------------------------------------------------------------------------

everyone("no-keyring", "no keyr block", {"keyrings": lambda _: []})
for _name, _description, _order in (
    ("no-references", "no XREF", ["SNAP"]),
    ("no-snapshot", "no SNAP", ["XREF"]),
    ("neither", "neither XREF nor SNAP", []),
    ("references-twice", "XREF stands twice", ["XREF", "XREF", "SNAP"]),
    ("snapshot-twice", "SNAP stands twice", ["XREF", "SNAP", "SNAP"]),
    ("snapshot-first", "SNAP before XREF", ["SNAP", "XREF"]),
    ("tree-between", "TREE between XREF and SNAP", ["XREF", "TREE", "SNAP"]),
    ("attributes-between", "TREX between XREF and SNAP", ["XREF", "TREX", "SNAP"]),
    ("tree-last", "TREE behind SNAP", ["XREF", "SNAP", "TREE"]),
    ("attributes-last", "TREX behind SNAP", ["XREF", "SNAP", "TREX"]),
    ("content", "PACK in an archive of kind 2", ["PACK", "XREF", "SNAP"]),
):
    everyone(_name, _description, {"order": lambda _, order=_order: order})  # type: ignore[misc]


def _streams(m: Maker) -> Maker:
    m.pack(b"a content")
    m.stream()
    m.finish()
    return m


def _foreign(kind: str) -> Any:
    def build(m: Maker) -> Maker:
        m.block(kind, {}, b"\xa0", codec="stored")
        m.finish()
        return m

    return build


bad(
    "data-stream",
    "block",
    "block",
    "FHDR:0",
    "5",
    "FHDR in an archive of kind 1",
    base=_streams,
    browse="block",
    **DATA,
)
for _type in ("SNAP", "XREF", "keyr"):
    bad(
        f"data-{_type.lower()}",
        "block",
        "block",
        "end",
        "5",
        f"{_type} in an archive of kind 1",
        base=_foreign(_type),
        browse="block",
        **DATA,
    )

# --- keyr ----------------------------------------------------------------------------------------

everyone("keyring-form", "a keyr block that is no map", {"keyring": lambda _: b"\x80"}, clause="5.4")
everyone("keyring-missing", "a keyr block without key 1", {"keyring": drop(1)}, clause="5.4")
everyone("keyring-empty", "a keyr block without editions", {"keyring": put(1, [])}, clause="5.4")
everyone("keyring-text", "an edition that is a text", {"keyring": put(1, ["edition"])}, clause="5.4")
everyone("keyring-many", "65 editions", {"keyring": put(1, [b""] * 65)}, "limit", "5.4")
everyone("keyring-bytes", "a keyr block without a body", {"body:keyr:0": lambda _: b""}, clause="5.4")
everyone(
    "keyring-mac",
    "a keyr block with a MAC",
    {"prefix:keyr:0": lambda p: {**p, "flags": 1}, "mac:keyr:0": lambda _: bytes(32)},
)

# --- XREF ----------------------------------------------------------------------------------------

ONE, TWO, THREE = (bytes([n]) * 16 for n in (1, 2, 3))
for _name, _description, _hook in (
    ("form", "XREF that is no map", lambda _: b"\x80"),
    ("id-cut", "XREF with an id of 15 bytes", edit(1, lambda ids: ids[:-1])),
    ("id-more", "XREF with more ids than kinds", edit(1, lambda ids: ids + bytes(16))),
    ("kinds", "XREF with fewer kinds than ids", edit(2, lambda kinds: kinds[:-1])),
    ("kind-3", "XREF with a kind of 3", put(2, b"\1\2\3")),
    ("lengths", "XREF with too few lengths", put(3, encode_column([9, 9]))),
    ("lengths-more", "XREF with too many lengths", put(3, encode_column([9, 9, 9, 9]))),
    ("live", "XREF with too few live bytes", put(4, encode_column([9, 9]))),
    ("live-missing", "XREF without live bytes", drop(4)),
    ("live-varint", "XREF with a number that is not in its shortest form", put(4, b"\x09\x09\x89\x00")),
    ("twice", "XREF that names an archive twice", put(1, ONE + TWO + ONE)),
):
    keyed(f"references-{_name}", "5.2", _description, {"references": _hook})


def _itself(name: str) -> Vector:
    own = Maker(name, **VAULT).archive_id
    hooks: dict[str, Hook] = {"references": put(1, ONE + own + THREE)}
    vector = of(metadata(Maker(name, hooks=hooks, **VAULT)), others=[Other("block", [BROWSER], right="browse")])
    vector.expected = "block"
    return vector


positive("metadata-references-itself", "XREF that names its own archive", "vault 5.2", "vault 5.2")(_itself)

# --- SNAP ----------------------------------------------------------------------------------------

keyed("snapshot-form", "5.3", "SNAP that is no map", {"snapshot": lambda _: b"\x80"})
for _key in (*range(1, 6), *range(7, 15), 20):
    keyed(f"snapshot-no-{_key}", "5.3", f"SNAP without key {_key}", {"snapshot": drop(_key)})


def text(value: str) -> Hook:
    """A text in the first row of key 17, with a word that is as long as it may be."""
    return put(17, [[b"x", "w" * 64, value]])


for _name, _description, _hook in (
    ("vault", "a vault id of 15 bytes", put(1, bytes(15))),
    ("host", "a host id of 17 bytes", put(2, bytes(17))),
    ("set-empty", "a set without a name", put(4, "")),
    ("set-bytes", "a set's name that is a byte string", put(4, b"set")),
    ("sequence-0", "sequence number 0", put(5, 0)),
    ("parent-short", "a parent without the hash of its FOOT", put(6, [bytes(16)])),
    ("parent-hash", "a parent's hash of 31 bytes", put(6, [bytes(16), bytes(31)])),
    ("parent-missing", "key 19 says 2, and there is no parent", drop(6)),
    ("parent-there", "key 19 says 3, and there is a parent", put(19, 3)),
    ("parent-first", "key 19 says 1, and there is a parent", put(19, 1)),
    ("parent-state", "key 19 says 4", lambda r: {**drop(6)(r), 19: 4}),
    ("parent-unsaid", "no key 19", drop(19)),
    ("heads-cut", "heads of 17 bytes", put(7, bytes(17))),
    ("heads-order", "heads that are not ascending", edit(7, lambda h: h[16:] + h[:16])),
    ("heads-twice", "a head that stands twice", edit(7, lambda h: h[:16] * 2)),
    ("mode", "mode 3", put(8, 3)),
    ("times", "three times", put(9, [1, 2, 3])),
    ("times-negative", "a time before 1970", put(9, [-1, 2])),
    ("root-short", "a root without an archive number", edit(10, lambda r: [r[0], *r[2:]])),
    ("root-id", "a root's id of 31 bytes", edit(10, lambda r: [r[0][1:], *r[1:]])),
    ("root-number", "a root in archive 4 of 3", edit(10, lambda r: [r[0], 4, *r[2:]])),
    ("root-data", "a root in a data archive", edit(10, lambda r: [r[0], 1, *r[2:]])),
    ("root-other", "a root of another id", edit(10, lambda r: [flip(r[0]), *r[1:]])),
    ("root-place", "a root at a place without a node", edit(10, lambda r: [*r[:3], 1])),
    ("totals", "three totals", put(11, [1, 2, 3])),
    ("source-kind", "a source of kind 4", put(12, [[b"a", b"/a", 4]])),
    ("source-short", "a source without a kind", put(12, [[b"a", b"/a"]])),
    ("tags-order", "tags that are not ascending", put(13, ["b", "a"])),
    ("tags-order-utf-16", "tags in the order of UTF-16", put(13, ["\U00010000", "\uffff"])),
    ("tags-twice", "a tag that stands twice", put(13, ["a", "a"])),
    ("tags-bytes", "a tag that is a byte string", put(13, [b"a"])),
    ("counts-8", "eight counts", put(14, [0] * 8)),
    ("counts-10", "ten counts", put(14, [0] * 10)),
    ("moves-empty", "an empty list of moves", put(15, [])),
    ("moves-kind", "a move of an entry of kind 8", put(15, [[b"a", b"b", 8]])),
    ("deletions-empty", "an empty list of deletions", put(16, [])),
    ("deletions-text", "a deletion that is a text", put(16, ["a"])),
    ("problems-empty", "an empty list of problems", put(17, [])),
    ("problems-short", "a problem without a text", put(17, [[b"a", "unreadable"]])),
    ("conflicts-empty", "an empty list of conflicts", put(18, [])),
    ("conflicts-answer", "answer 6", put(18, [[b"a", 6]])),
    ("conflicts-answer-0", "answer 0", put(18, [[b"a", 0]])),
    ("flags", "flags that are a byte string", put(20, b"\1")),
):
    keyed(f"snapshot-{_name}", "5.3", _description, {"snapshot": _hook})
for _name, _description, _hook in (
    ("label", "a label of 256 bytes", put(3, "\u00e9" * 128)),
    ("set", "a set's name of 4,097 bytes", put(4, "x" * 4_097)),
    ("source", "a source's name of 65,536 bytes", put(12, [[b"x" * 65_536, b"/x", 1]])),
    ("tag", "a tag of 4,097 bytes", put(13, ["x" * 4_097])),
    ("moves", "16,385 moves", put(15, [[b"a", b"b", 1]] * 16_385)),
    ("deletions", "16,385 deletions", put(16, [b"a"] * 16_385)),
    ("word", "a problem's word of 65 bytes", put(17, [[b"a", "x" * 65, ""]])),
    ("text", "a problem's text of 4,097 bytes", text("x" * 4_097)),
    ("problems", "16,385 problems", put(17, [[b"a", "x", ""]] * 16_385)),
    ("conflicts", "16,385 conflicts", put(18, [[b"a", 1]] * 16_385)),
):
    keyed(f"limit-{_name}", "5.3", _description, {"snapshot": _hook}, "limit")

# --- nodes ---------------------------------------------------------------------------------------


def numbers(*values: int) -> bytes:
    """A column."""
    return encode_column(list(values))


for _name, _description, _hooks in (
    ("path", "a directory with a path", {"hints:root": put(7, b"")}),
    ("path-inner", "an inner node with a path", {"hints:inner": put(7, b"d")}),
    ("no-8", "no archive numbers of contents", {"hints:files": drop(8)}),
    ("8-short", "too few archive numbers of contents", {"hints:files": put(8, numbers(0, 2, 1))}),
    ("8-long", "too many archive numbers of contents", {"hints:files": put(8, numbers(0, 2, 1, 0, 0))}),
    ("8-alone", "archive numbers of no contents", {"hints:root": put(8, b"")}),
    ("no-9", "no archive numbers of directories", {"hints:root": drop(9)}),
    ("9-alone", "archive numbers of no directories", {"hints:files": put(9, b"")}),
    ("no-10", "no archive numbers of attributes", {"hints:files": drop(10)}),
    ("10-long", "too many archive numbers of attributes", {"hints:files": put(10, numbers(0, 3, 3))}),
    ("10-alone", "archive numbers of no attributes", {"hints:shared": put(10, b"")}),
    ("inner-no-8", "an inner node without archive numbers", {"hints:inner": drop(8)}),
    ("table-no-8", "a part table without archive numbers", {"hints:small table": drop(8)}),
    ("table-8-long", "a part table with a number for its hole", {"hints:small table": put(8, numbers(1, 0))}),
    ("inner-table-no-8", "a table of sub-tables without archive numbers", {"hints:inner table": drop(8)}),
    ("number", "a content in archive 4 of 3", {"hints:files": put(8, numbers(0, 2, 1, 4))}),
    ("number-high", "a content in archive 2^64 - 1", {"hints:files": put(8, numbers(0, 2, 1, 2**64 - 1))}),
    ("directory-number", "a directory in archive 4 of 3", {"hints:root": put(9, numbers(0, 0, 4, 0))}),
    ("directory-data", "a directory in a data archive", {"hints:root": put(9, numbers(0, 0, 1, 0))}),
    ("attributes-data", "attributes in a data archive", {"hints:files": put(10, numbers(0, 1))}),
    ("inner-data", "a child of an inner node in a data archive", {"hints:inner": put(8, numbers(0, 1))}),
    ("sub-table-data", "a sub-table in a data archive", {"hints:inner table": put(8, numbers(0, 1))}),
    ("part-own", "a part in the metadata archive itself", {"hints:small table": put(8, numbers(0))}),
    ("part-metadata", "a part in another metadata archive", {"hints:small table": put(8, numbers(2))}),
    ("child-id", "a directory of another id", {"logical:root": edit(11, flip)}),
    ("child-place", "a directory at a place without a node", {"hints:root": put(4, numbers(7, 0, 9, 2))}),
    ("child-piece", "a directory at piece 2^40", {"hints:root": put(4, numbers(2**40, 0, 9, 2))}),
    (
        "child-table",
        "a directory at the place of a part table",
        {"entries": row(0, lambda e: _moved(e, block=3, piece=2))},
    ),
    (
        "child-forward",
        "a directory behind the node that refers to it",
        {"entries": row(0, lambda e: _moved(e, block=7))},
    ),
    ("inner-child-id", "an inner node's child of another id", {"logical:inner": edit(5, flip)}),
    (
        "content-directory",
        "a content at the place of a directory",
        {"files": row(3, lambda e: _moved(e, block=5, piece=0))},
    ),
    ("content-keyring", "a content in a keyr block", {"files": row(3, lambda e: _moved(e, block=1, piece=0))}),
    ("content-forward", "a part table behind the file", {"files": row(3, lambda e: _moved(e, block=6, piece=0))}),
    ("sub-table-id", "a sub-table of another id", {"logical:inner table": edit(4, flip)}),
    ("sub-table-itself", "a table that is its own sub-table", {"hints:inner table": put(2, numbers(1, 0))}),
):
    keyed(f"node-{_name}", "5.1", _description, _hooks)


def _moved(entry: Entry, **place: int) -> Entry:
    for name, value in place.items():
        setattr(entry, name, value)
    return entry


def _partial(m: Maker) -> Maker:
    """A partial directory; its hints are in the form of a vault."""
    m.hooks["pieces"] = lambda pieces: [*pieces, m.leaf(b"", [Entry(b"a", Kind.FIFO)], partial=True, name="partial")[0]]
    return metadata(m)


def _table_below(m: Maker) -> Maker:
    """A table of sub-tables whose sub-table is such a one itself."""

    def more(pieces: list[bytes]) -> list[bytes]:
        below = m.table([nodes.Part(0, 5, m.ident(b"x"), 4, 0, 2)], "below", inner=True)
        above = m.table([nodes.Part(0, 5, below[1], len(m.blocks), 1)], "above", inner=True)
        return [*pieces, below[0], above[0]]

    m.hooks["pieces"] = more
    return metadata(m)


def _strange(m: Maker) -> Maker:
    """A directory of an unknown type."""

    def more(pieces: list[bytes]) -> list[bytes]:
        strange, one = m.node("strange", {1: 99}, {})
        entry = Entry(b"x", Kind.DIRECTORY, child=one, block=len(m.blocks), piece=1)
        return [*pieces, strange, m.leaf(b"", [entry], name="refers")[0]]

    m.hooks["pieces"] = more
    return metadata(m)


keyed("node-partial", "5.1", "a partial directory", {}, base=_partial)
keyed("node-tables-deep", "5.1", "a table of tables of sub-tables", {}, base=_table_below)
keyed("unsupported-node", "5.1", "a directory's node of a type that is not known", {}, "unsupported", base=_strange)
keyed(
    "node-attributes-place",
    "5.1",
    "attributes at a place where none are",
    {"hints:files": put(6, numbers(7, 1))},
    browse="success",
)
keyed(
    "node-attributes-block",
    "5.1",
    "attributes in a keyr block",
    {"hints:files": put(5, b"\x02\x10")},
    browse="success",
)
keyed(
    "node-attributes-forward",
    "5.1",
    "attributes behind the node that refers to them",
    {"hints:files": put(5, b"\x0e\x04")},
)
keyed(
    "node-attributes-id",
    "5.1",
    "attributes of another id, ids being the archive's own",
    {"logical:files": edit(15, lambda rows: [[rows[0][0], flip(rows[0][1])], *rows[1:]])},
    browse="success",
    id_key=None,
)
bad(
    "node-vault-hints",
    "block",
    "success",
    "TREE:0",
    "8.1",
    "archive numbers in a self-contained archive",
    {"hints:": put(8, numbers(0, 0))},
    base=small,
    browse="block",
    stop_keyless="end",
)

# --- index ---------------------------------------------------------------------------------------

keyed(
    "look-up",
    "5",
    "a content look-up in an archive of kind 2",
    {"look-up": lambda _: [(bytes(8), 0, 0)]},
    "index",
)
keyed("paths", "5", "a path look-up in an archive of kind 2", {"paths": lambda _: [(bytes(16), 3, 0)]}, "index")


def data_index(name: str, description: str, hooks: dict[str, Hook], *, browse: str = "success") -> None:
    """A fault of a data archive's index."""
    bad(name, "index", "success", "end", "9", description, hooks, base=data, browse=browse, stop_keyless="end", **DATA)


data_index(
    "data-look-up-place",
    "a look-up with a wrong piece, where prefixes cannot be checked",
    {"look-up": lambda rows: sorted([(*rows[0][:2], 7), *rows[1:]])},
)
data_index("data-look-up-missing", "a piece that is not in the look-up", {"look-up": lambda rows: rows[1:]})
data_index(
    "data-look-up-more",
    "a look-up with a row twice",
    {"look-up": lambda rows: sorted([*rows, rows[0]])},
    browse="index",
)
data_index(
    "data-paths", "a path look-up in an archive of kind 1", {"paths": lambda _: [(bytes(16), 0, 0)]}, browse="index"
)


@positive("data-ids-unchecked", "prefixes of the look-up that only the host's id key could check", "index", "11")
def _unchecked(name: str) -> Vector:
    hooks: dict[str, Hook] = {"look-up": lambda rows: sorted((flip(r[0]), *r[1:]) for r in rows)}
    return of(data(Maker(name, hooks=hooks, **DATA)), others=[BROWSE])


bad(
    "data-own-ids-look-up",
    "index",
    "success",
    "end",
    "9",
    "a look-up with a wrong prefix, ids being the archive's own",
    {"look-up": lambda rows: sorted([(flip(rows[0][0]), *rows[0][1:]), *rows[1:]])},
    base=data,
    kind=1,
    browse="success",
    stop_keyless="end",
)

__all__ = ["VECTORS"]
