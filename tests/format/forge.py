# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes objects by docs/format.md, for what the library itself would not write."""

import hashlib
import json
import os
import struct

import xxhash
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from store import JOURNAL, xxh3


def header(repository, kind, body_length, nonce=bytes(12), flags=1):
    """A header."""
    data = struct.pack("<4sBBBB16sQII12sI", b"XVS1", kind, 1, 0, flags, repository.id, body_length,
                       0, 0, nonce, 0)
    return data + xxh3(data)


def seal(cipher, key, nonce, bound, message):
    """Ciphertext and tag."""
    if cipher == 1:
        return AESGCM(key).encrypt(nonce, message, bound)
    return message + xxhash.xxh3_128_intdigest(nonce + bound + message).to_bytes(16, "little")


def put(repository, name, data):
    """Stores an object, whatever is there."""
    path = os.path.join(repository.store.path, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def sealed_object(repository, name, kind, document):
    """A sealed JSON object; returns all of its bytes."""
    message = json.dumps(document).encode()
    head = header(repository, kind, len(message) + 16, os.urandom(12))
    data = head + seal(repository.config.cipher, repository.keys.of_object(name), head[40:52],
                       head[:56] + name.encode(), message)
    data += xxh3(data)
    put(repository, name, data)
    return data


class JournalWriter:
    """Writes a journal from its first entry on."""

    def __init__(self, repository, seq=0, previous="0" * 64):
        self.repository, self.seq, self.previous = repository, seq, previous

    def append(self, records, **changes):
        """Writes an entry; changes: members that are to be different."""
        self.seq += 1
        document = {"seq": self.seq, "nonce": os.urandom(16).hex(), "previous": self.previous,
                    "written": 1000 + self.seq, "records": records, **changes}
        data = sealed_object(self.repository, f"j/{self.seq:016x}", JOURNAL, document)
        self.previous = hashlib.sha256(data).hexdigest()
