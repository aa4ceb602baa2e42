# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes objects by docs/format.md, for what the library itself would not write."""

import hashlib
import json
import os
import struct

import xxhash
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from packs import SALTS
from store import JOURNAL, KEY, NODES, SEGMENT, mac, pack_name, xxh3


def header(repository, kind, body_length, nonce=bytes(12), flags=1, owner=None, later=False):
    """A header. owner: id of another repository; later: as a later minor version might write it."""
    data = struct.pack("<4sBBBB16sQII12sI", b"XVS1", kind, 1, 9 if later else 0, flags,
                       owner or repository.id, body_length, 0, 0, nonce, 77 if later else 0)
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


def sealed_object(repository, name, kind, document, later=False):
    """A sealed JSON object; returns all of its bytes."""
    message = json.dumps(document).encode()
    head = header(repository, kind, len(message) + 16, os.urandom(12), later=later)
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


def key_slot(repository, master, passphrase, name, label=b"", owner=None):
    """Another key slot; owner: id of another repository for the header."""
    salt, nonce = os.urandom(32), os.urandom(12)
    body = struct.pack("<BBBB4sQ32s", 1, 10, 8, 1, bytes(4), 1000, salt)
    key = hashlib.scrypt(passphrase, salt=salt, n=1 << 10, r=8, p=1, dklen=32)
    bound = b"xvsa key slot" + (owner or repository.id) + name.encode() + body
    body += nonce + AESGCM(key).encrypt(nonce, master, bound) + bytes(4)
    body += bytes([len(label)]) + label
    data = header(repository, KEY, len(body), flags=0, owner=owner) + body
    put(repository, name, data + xxh3(data))


class PackWriter:
    """A pack of chunks or nodes, frame by frame."""

    def __init__(self, repository, kind, session, later=False):
        self.repository, self.kind, self.session, self.later = repository, kind, session, later
        self.handle = os.urandom(16)
        self.table, self.frames, self.count = b"", b"", 0

    def add(self, contents, compressed):
        """Adds a frame of (id, content); returns its offset and length."""
        repo = self.repository
        raw = b"".join(content for _, content in contents)
        offset = 96 + len(self.frames)
        message = zstandard.compress(raw) if compressed else raw
        head = struct.pack("<4sHHIIII", b"XVFR", self.count, len(contents), offset, len(raw),
                           len(message) + 16, int(compressed))
        head += b"".join(name + len(content).to_bytes(4, "little") for name, content in contents)
        stored = seal(repo.config.cipher, repo.keys.of_pack(self.handle),
                      self.count.to_bytes(4, "little") + bytes(8),
                      repo.id + self.handle + head, message)
        head += xxh3(stored)
        head += xxh3(head)
        self.table += head
        self.frames += head + stored
        self.count += 1
        return offset, len(head) + len(stored)

    def finish(self):
        """Stores the pack; returns its length."""
        repo, name = self.repository, pack_name(self.kind, self.handle)
        length = 96 + len(self.frames) + len(self.table) + 64
        head = header(repo, self.kind, length - 64, later=self.later) + bytes.fromhex(self.session)
        head += bytes([repo.config.chunk.bit_length() - 1, repo.config.cipher])
        head += bytes([self.later]) * 14
        tail = struct.pack("<4sHHIIQ", b"XVPF", 1, 5 * self.later, self.count, len(self.table),
                           96 + len(self.frames)) + xxh3(self.table)
        tail += mac(repo.keys.mac, name.encode() + head + self.table + tail)
        put(repo, name, head + self.frames + self.table + tail)
        return length


def node(repository, level, entries):
    """Id and encoding of a node; entries: number -> kind, or (id, pack, slot, offset, length)."""
    kinds, packs, tail, ids = bytearray(32), [], b"", b""
    for number, entry in sorted(entries.items()):
        kind = entry if isinstance(entry, int) else 2
        kinds[number // 4] |= kind << (2 * (number % 4))
        if kind != 2:
            continue
        name, pack, slot, offset, length = entry
        if pack not in packs:
            packs.append(pack)
        tail += struct.pack("<32sHHII", name, packs.index(pack), slot, offset, length)
        ids += name
    data = struct.pack("<BBH", 1, level, len(packs)) + bytes(kinds) + b"".join(packs) + tail
    return mac(repository.keys.node, b"XVN1" + bytes([level]) + bytes(kinds) + ids), data


def segment(repository, handle, locations):
    """Stores an index segment of one block; locations: id -> kind, pack, offset, length, slot.

    Returns what INDEX_ADD says about it.
    """
    name = f"ix/{handle}"
    packs = sorted({(kind, pack) for kind, pack, *_ in locations.values()})
    block, words = b"", [0] * 8
    for identity, (kind, pack, offset, length, slot) in sorted(locations.items()):
        block += struct.pack("<32sIIIHH", identity, packs.index((kind, pack)), offset, length,
                             slot, 0)
        bits = int.from_bytes(identity[12:16], "little")
        words = [word | 1 << ((bits * salt & 0xffffffff) >> 27) for word, salt in zip(words, SALTS)]
    tables = b"".join(pack + bytes([kind == NODES, 0, 0, 0]) for kind, pack in packs)
    tables += block[:8] + struct.pack("<I8I", 1, *words)
    counts = struct.pack("<IIII", 1, len(locations), len(packs), len(tables) + 16)
    head = header(repository, SEGMENT, 16 + len(tables) + 16 + 4096)
    key, bound = repository.keys.of_object(name), head[:56] + name.encode() + counts
    data = head + counts
    for number, message in ((0xffffffff, tables), (0, block.ljust(4080, b"\0"))):
        data += seal(repository.config.cipher, key, number.to_bytes(4, "little") + bytes(8), bound,
                     message)
    data += xxh3(data)
    put(repository, name, data)
    return {"id": handle, "length": len(data), "head": 64 + 16 + len(tables) + 16,
            "entries": len(locations)}
