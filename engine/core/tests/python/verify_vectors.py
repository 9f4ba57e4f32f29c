"""Works out the vectors of the log anew, from the definitions of RFC 6962 section 2.1 and C2SP
tlog-tiles, using nothing of Placet.

usage: verify_vectors.py FOLDER

Prints how many values it found as they should be. Exit 0 if all are, 1 if one is not.
"""

import hashlib
import json
import pathlib
import sys

import verify_receipt


def root(leaves):
    """MTH of RFC 6962 section 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = left_half(leaves)
    return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()


def left_half(leaves):
    """The largest power of two below the number of leaves."""
    return 1 << ((len(leaves) - 1).bit_length() - 1)


def path(index, leaves):
    """PATH of RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = left_half(leaves)
    if index < split:
        return path(index, leaves[:split]) + [root(leaves[split:])]
    return path(index - split, leaves[split:]) + [root(leaves[:split])]


def growth(old, leaves, whole=True):
    """SUBPROOF of RFC 6962 section 2.1.2."""
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    split = left_half(leaves)
    if old <= split:
        return growth(old, leaves[:split], whole) + [root(leaves[split:])]
    return growth(old - split, leaves[split:], False) + [root(leaves[:split])]


def tile(name, leaves):
    """C2SP tlog-tiles, "Merkle Tree" and "Log entries"."""
    name, _, width = name.partition(".p/")
    _, level, *groups = name.split("/")
    width = int(width or 256)
    first = int("".join(groups).replace("x", "")) * 256
    if level == "entries":
        entries = leaves[first : first + width]
        return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in entries)
    span = 256 ** int(level)
    hashes = (root(leaves[at * span : (at + 1) * span]) for at in range(first, first + width))
    return b"".join(hashes)


def facts(folder):
    """Each value that can be worked out: where it is, what is there, what should be."""

    def read(name):
        return json.loads((folder / name).read_text(encoding="utf-8"))

    vector = read("tree.json")
    tree = [bytes.fromhex(leaf) for leaf in vector["leaves_hex"]]
    for size, found in enumerate(vector["roots_hex"], 1):
        yield f"tree.json, {size}", found, root(tree[:size]).hex()

    vector = read("proofs.json")
    for proof in vector["inclusion"]:
        hashes = path(proof["index"], tree[: proof["size"]])
        where = f"proofs.json, leaf {proof['index']} of {proof['size']}"
        yield where, proof["hashes_hex"], [each.hex() for each in hashes]
    for proof in vector["consistency"]:
        hashes = growth(proof["old"], tree[: proof["new"]])
        where = f"proofs.json, {proof['old']} to {proof['new']}"
        yield where, proof["hashes_hex"], [each.hex() for each in hashes]

    vector = read("tiles.json")
    leaves = [b"leaf %d" % at for at in range(vector["size"])]
    yield "tiles.json, root", vector["root_hex"], root(leaves).hex()
    for each in vector["tiles"]:
        content = tile(each["path"], leaves)
        yield each["path"], each["sha256_hex"], hashlib.sha256(content).hexdigest()
        yield each["path"], each.get("hex", content.hex()), content.hex()

    vector = read("leaf.json")
    leaves = [leaf.encode() for leaf in vector["leaves"]]
    yield "leaf.json, root", vector["root_hex"], root(leaves).hex()
    yield "leaf.json, hashes", vector["leaf_hashes_hex"], [root([leaf]).hex() for leaf in leaves]

    vector = read("consistency.json")
    yield "consistency.json", vector["hashes_hex"], [each.hex() for each in growth(1, leaves)]
    for member, size in (("older", 1), ("newer", 2)):
        head = verify_receipt.verify_checkpoint(vector[member], vector["verifier_key"])
        yield f"consistency.json, {member}", head, (size, root(leaves[:size]))

    vector = read("cosignature.json")
    times = {witness["name"]: witness["time"] for witness in vector["witnesses"]}
    keys = [witness["verifier_key"] for witness in vector["witnesses"]]
    found = verify_receipt.cosigners(vector["cosigned"], keys)
    yield "cosignature.json", found, times


def main():
    count = 0
    for where, found, expected in facts(pathlib.Path(sys.argv[1])):
        if found != expected:
            print(f"{where}: found {found}, expected {expected}", file=sys.stderr)
            return 1
        count += 1
    print(count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
