"""Verifies a receipt offline, using nothing of Placet: cryptography for the signatures, PyJWT for
the token, hashlib for the tree.

usage: verify_receipt.py RECEIPT_FILE LOG_KEY JWKS_FILE ISSUER [QUORUM WITNESS_KEY...]

LOG_KEY and each WITNESS_KEY are verifier keys, name+hash+base64; at least QUORUM of these witnesses
must have cosigned the checkpoint.
Prints what is proved as JSON. Exit 0 if the receipt is good, 1 if it is refused.
"""

import base64
import hashlib
import json
import sys

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TYP = "placet-decision+jwt"
LOG, WITNESS = 1, 4  # signature types of C2SP signed-note


class Refused(Exception):
    pass


def unbase64(text):
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused(f"{text[:20]!r} is not base64") from None
    if base64.b64encode(decoded).decode() != text:
        raise Refused(f"{text[:20]!r} is not base64 as it is written")
    return decoded


def verifier_key(text, kind):
    """C2SP signed-note, "Verifier keys": the name, the key hash and the key."""
    name, key_hash, encoded = text.split("+", 2)
    typed = unbase64(encoded)
    computed = hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4]
    if typed[0] != kind or len(typed) != 33 or computed.hex() != key_hash:
        raise Refused(f"{text!r} is no verifier key of type {kind}")
    return name, computed, Ed25519PublicKey.from_public_bytes(typed[1:])


def read_receipt(text):
    """C2SP tlog-proof: the leaf, its position, the proof and the signed checkpoint."""
    head, _, note = text.partition("\n\n")
    version, extra, index, *hashes = head.split("\n")
    if version != "c2sp.org/tlog-proof@v1":
        raise Refused(f"{version!r} is no receipt")
    if not extra.startswith("extra ") or not index.startswith("index "):
        raise Refused("it has no leaf or no position")
    position = int(index[6:])
    if str(position) != index[6:] or position < 0:
        raise Refused(f"{index[6:]!r} is no position")
    return unbase64(extra[6:]), position, [unbase64(line) for line in hashes], note


def signatures(note):
    """C2SP signed-note, "Format": the text, and who says to have signed it."""
    body, separator, below = note.rpartition("\n\n")
    if not separator or not below.endswith("\n"):
        raise Refused("its checkpoint is no signed note")
    found = []
    for line in below[:-1].split("\n"):
        mark, name, encoded = line.split(" ")
        if mark != "\N{EM DASH}":
            raise Refused("its checkpoint has a line that is no signature")
        signature = unbase64(encoded)
        found.append((name, signature[:4], signature[4:]))
    return body + "\n", found


def of_signer(found, name, key_hash):
    own = [signature for who, known, signature in found if (who, known) == (name, key_hash)]
    if len(own) > 1:
        raise Refused(f"{name!r} signed twice")
    return own[0] if own else None


def verify_checkpoint(note, log_key):
    """C2SP tlog-checkpoint: the size and the root that the log's key signed."""
    name, key_hash, key = verifier_key(log_key, LOG)
    text, found = signatures(note)
    signature = of_signer(found, name, key_hash)
    if signature is None:
        raise Refused(f"its checkpoint is not signed by {name!r}")
    key.verify(signature, text.encode())
    origin, size, root, *_ = text.split("\n")
    if origin != name:
        raise Refused(f"its checkpoint is of {origin!r}, not {name!r}")
    return int(size), unbase64(root)


def cosigners(note, witness_keys):
    """C2SP tlog-cosignature, Ed25519: which witnesses cosigned, and when."""
    text, found = signatures(note)
    if len({witness_key.split("+", 2)[2] for witness_key in witness_keys}) < len(witness_keys):
        raise Refused("two of these witnesses have one key")
    times = {}
    for witness_key in witness_keys:
        name, key_hash, key = verifier_key(witness_key, WITNESS)
        signature = of_signer(found, name, key_hash)
        if signature is not None:
            time = int.from_bytes(signature[:8], "big")
            key.verify(signature[8:], f"cosignature/v1\ntime {time}\n{text}".encode())
            times[name] = time
    return times


def root_of(leaf, position, size, hashes):
    """RFC 9162 section 2.1.3.2: the root to which the proof leads."""
    if position >= size:
        raise Refused(f"leaf {position} is not in a tree of {size}")
    node, last = position, size - 1
    root = hashlib.sha256(b"\0" + leaf).digest()
    for beside in hashes:
        if last == 0 or len(beside) != 32:
            raise Refused("its proof is too long, or has what is no hash")
        if node & 1 or node == last:
            root = hashlib.sha256(b"\1" + beside + root).digest()
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            root = hashlib.sha256(b"\1" + root + beside).digest()
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Refused("its proof is too short")
    return root


def verify_token(token, jwks, issuer):
    """As an auditor: it was issued, however long ago and for whomever."""
    header = jwt.get_unverified_header(token)
    if header.get("typ") != TYP:
        raise Refused(f"the token's typ is {header.get('typ')!r}, not {TYP!r}")
    key = jwt.PyJWKSet.from_json(jwks)[header["kid"]]
    only_issuer = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
    return jwt.decode(token, key.key, algorithms=["EdDSA"], issuer=issuer, options=only_issuer)


def verify(text, log_key, jwks, issuer, quorum=0, witness_keys=()):
    leaf, position, hashes, note = read_receipt(text)
    size, root = verify_checkpoint(note, log_key)
    if root_of(leaf, position, size, hashes) != root:
        raise Refused("its proof does not lead from its leaf to the root")
    witnesses = cosigners(note, witness_keys)
    if len(witnesses) < quorum:
        raise Refused(f"{len(witnesses)} of these witnesses cosigned, not {quorum}")
    event = json.loads(leaf)["event"]
    if event["kind"] != "decision":
        raise Refused(f"it proves an event of kind {event['kind']!r}")
    claims = verify_token(event["token"], jwks, issuer)
    return {"claims": claims, "index": position, "size": size, "witnesses": witnesses}


def main():
    path, log_key, jwks_path, issuer, *rest = sys.argv[1:]
    with open(jwks_path, encoding="utf-8") as file:
        jwks = file.read()
    quorum, witness_keys = int(rest[0]) if rest else 0, rest[1:]
    try:
        # Line breaks are part of what is signed: they are not to be translated.
        with open(path, encoding="utf-8", newline="") as file:
            proved = verify(file.read(), log_key, jwks, issuer, quorum, witness_keys)
    except InvalidSignature:
        print("refused: a signature is not on this checkpoint", file=sys.stderr)
        return 1
    except (Refused, jwt.PyJWTError, ValueError, KeyError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(json.dumps(proved, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
