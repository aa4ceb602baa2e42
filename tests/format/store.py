# SPDX-License-Identifier: LGPL-2.1-or-later
"""Objects of a repository: headers, trailers, sealing, keys (docs/format.md, sections 1 to 4).

Part of the independent reader: written from docs/format.md, it shares nothing with the library.
"""

import hashlib
import hmac
import os
import re
import struct

import xxhash
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEADER = 64
TRAILER = 8
TAG = 16
CONFIG, KEY, JOURNAL, CHUNKS, NODES, SEGMENT, POINT, PROGRESS = range(1, 9)

NAMES = (
    (CONFIG, re.compile(r"config")),
    (KEY, re.compile(r"key/[0-9a-f]{16}")),
    (JOURNAL, re.compile(r"j/[0-9a-f]{16}")),
    (CHUNKS, re.compile(r"p/([0-9a-f]{2})/(\1[0-9a-f]{30})")),
    (NODES, re.compile(r"n/([0-9a-f]{2})/(\1[0-9a-f]{30})")),
    (SEGMENT, re.compile(r"ix/[0-9a-f]{32}")),
    (POINT, re.compile(r"rp/[0-9a-f]{32}")),
    (PROGRESS, re.compile(r"w/[0-9a-f]{32}")),
)


class Damage(Exception):
    """An object that is missing or does not hold what it must."""

    def __init__(self, name, what):
        super().__init__(f"{name}: {what}")
        self.name = name


class Refusal(Exception):
    """A repository that cannot be opened although nothing need be damaged."""


def xxh3(data):
    """XXH3-64 as the 8 bytes that are stored."""
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")


def mac(key, data):
    """HMAC-SHA-256."""
    return hmac.new(key, data, hashlib.sha256).digest()


def derive(key, text):
    """HKDF-Expand, one block."""
    return mac(key, text + b"\x01")


def type_of(name):
    """Type that an object of this name must have; None for names of no known type."""
    return next((number for number, form in NAMES if form.fullmatch(name)), None)


def pack_name(kind, handle):
    """Name of a pack of chunks or nodes."""
    digits = handle.hex()
    return f"{'p' if kind == CHUNKS else 'n'}/{digits[:2]}/{digits}"


class Directory:
    """A directory target."""

    def __init__(self, path):
        self.path = path

    def names(self):
        """Names of all objects, sorted, without left-overs of interrupted writes."""
        found = []
        for folder, _, files in os.walk(self.path):
            found += [os.path.relpath(os.path.join(folder, file), self.path) for file in files
                      if not file.startswith(".xvsa-tmp-")]
        return sorted(found)

    def length(self, name):
        """Length of an object; None when there is none."""
        try:
            return os.path.getsize(os.path.join(self.path, name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name, offset=0, length=-1):
        """Bytes of an object."""
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                file.seek(offset)
                data = file.read(length)
        except (FileNotFoundError, NotADirectoryError):
            raise Damage(name, "is missing") from None
        if length >= 0 and len(data) != length:
            raise Damage(name, f"ends before byte {offset + length}")
        return data


class Header:
    """The 64 bytes that every object begins with. notes: what only a strict reader minds."""

    def __init__(self, name, data, notes=None):
        if len(data) < HEADER:
            raise Damage(name, "is shorter than a header")
        self.raw = data[:HEADER]
        if xxh3(self.raw[:56]) != self.raw[56:]:
            raise Damage(name, "checksum of the header")
        (magic, self.type, self.major, self.minor, self.flags, self.repository, self.body, epoch,
         tenant, self.nonce, reserved) = struct.unpack("<4sBBBB16sQII12sI", self.raw[:56])
        if magic != b"XVS1":
            raise Damage(name, "is not an object of a repository")
        if self.major != 1:
            raise Refusal(f"{name}: major version {self.major}")
        if self.type != type_of(name):
            raise Damage(name, f"has type {self.type}")
        if epoch or tenant:
            raise Damage(name, "key epoch or tenant is not 0")
        if bool(self.flags & 1) != (self.type >= JOURNAL):
            raise Damage(name, f"has flags {self.flags}")
        if notes is not None:
            note(notes, name, self.minor == 0 and self.flags < 2, "minor version or flags")
            note(notes, name, reserved == 0, "reserved bytes of the header")
            note(notes, name, self.type in (JOURNAL, POINT, PROGRESS) or not any(self.nonce),
                 "nonce of an object without one")


def note(notes, name, good, what):
    """Adds a remark of a strict reader unless good."""
    if not good and notes is not None:
        notes.append(f"{name}: {what}")


def read_whole(store, name, notes=None):
    """An object that ends with a trailer: its header, body and all of its bytes."""
    data = store.read(name)
    header = Header(name, data, notes)
    if len(data) != HEADER + header.body + TRAILER:
        raise Damage(name, f"has {len(data)} bytes, its header says "
                           f"{HEADER + header.body + TRAILER}")
    if xxh3(data[:-TRAILER]) != data[-TRAILER:]:
        raise Damage(name, "checksum of the trailer")
    return header, data[HEADER:-TRAILER], data


def unseal(cipher, key, nonce, bound, sealed, what):
    """The message of ciphertext and tag."""
    if len(sealed) < TAG:
        raise Damage(what, "is shorter than a tag")
    if cipher == 1:
        try:
            return AESGCM(key).decrypt(nonce, sealed, bound)
        except InvalidTag:
            raise Damage(what, "does not open: changed, or of another place") from None
    message = sealed[:-TAG]
    tag = xxhash.xxh3_128_intdigest(nonce + bound + message).to_bytes(16, "little")
    if tag != sealed[-TAG:]:
        raise Damage(what, "checksum of the message")
    return message


class Config:
    """Parameters of a repository."""

    def __init__(self, store, notes=None):
        if store.length("config") is None:
            raise Refusal("no config: there is no repository")
        self.header, body, _ = read_whole(store, "config", notes)
        if len(body) != 128:
            raise Damage("config", f"body of {len(body)} bytes")
        self.authenticated, self.mac = b"config" + self.header.raw + body[:96], body[96:]
        (self.repository, self.made, must_read, self.must_write, self.may_ignore, chunk, fan_out,
         id_algorithm, self.cipher, compression, checksum, reserved, self.pack_size,
         self.frame_size) = struct.unpack("<16sQQQQBBBBBB2sII", body[:64])
        if self.repository != self.header.repository:
            raise Damage("config", "body and header name different repositories")
        if must_read:
            raise Refusal(f"config: unknown features {must_read:#x}")
        if not 16 <= chunk <= 22 or (fan_out, id_algorithm, compression, checksum) != (7, 1, 1, 1):
            raise Refusal("config: unknown parameters")
        if self.cipher not in (0, 1):
            raise Refusal(f"config: cipher {self.cipher}")
        self.chunk = 1 << chunk
        note(notes, "config", not any(reserved + body[64:96]), "reserved bytes")
        note(notes, "config", not self.must_write and not self.may_ignore, "features")


class Slot:
    """A key slot."""

    def __init__(self, store, name, notes=None):
        self.name = name
        self.header, body, _ = read_whole(store, name, notes)
        if len(body) < 113 or len(body) != 113 + body[112]:
            raise Damage(name, "length of the body")
        (self.kdf, self.log_n, self.r, self.p, reserved, self.made, self.salt, self.nonce,
         self.wrapped, self.tag, padding) = struct.unpack("<BBBB4sQ32s12s32s16sI", body[:112])
        self.bound = b"xvsa key slot" + self.header.repository + name.encode() + body[:48]
        self.label = body[113:].decode()
        if self.kdf not in (0, 1):
            raise Refusal(f"{name}: kdf {self.kdf}")
        if self.kdf == 1 and not (10 <= self.log_n <= 22 and self.r == 8 and self.p == 1):
            raise Damage(name, "parameters of scrypt")
        note(notes, name, not any(reserved) and padding == 0, "reserved bytes")

    def unwrap(self, passphrase, cipher):
        """The master key; None when the passphrase is another slot's."""
        if self.kdf == 0:
            if cipher or passphrase is not None:
                raise Refusal(f"{self.name}: a key in the clear, but encryption is asked for")
            if any(self.tag):
                raise Damage(self.name, "tag of a clear key is not zero")
            return self.wrapped
        if passphrase is None:
            return None
        key = hashlib.scrypt(passphrase, salt=self.salt, n=1 << self.log_n, r=self.r, p=self.p,
                             maxmem=(256 << self.log_n) * self.r, dklen=32)
        try:
            return AESGCM(key).decrypt(self.nonce, self.wrapped + self.tag, self.bound)
        except InvalidTag:
            return None


class Keys:
    """What the master key gives."""

    def __init__(self, master, repository):
        root = mac(repository + bytes(16), master)
        self.mac = derive(root, b"xvsa mac")
        self.metadata = derive(root, b"xvsa metadata")
        self.data = derive(root, b"xvsa data")
        self.chunk = derive(root, b"xvsa chunk id")
        self.node = derive(root, b"xvsa node id")

    def of_object(self, name):
        """Key of a sealed object."""
        return derive(self.metadata, b"object" + name.encode())

    def of_pack(self, handle):
        """Key of a pack."""
        return derive(self.data, b"pack" + handle)
