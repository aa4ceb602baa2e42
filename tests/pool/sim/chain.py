# SPDX-License-Identifier: LGPL-2.1-or-later
"""Chains of VHD-like SRs: hidden "base copy" nodes, their depth limit, and coalescing.

Only the records behave like a chain; each disk keeps a whole data file of its own.
"""

import time

from . import sr as srs
from .database import new_uuid
from .model import NULL


def by_uuid(pool, uuid):
    return pool.db.uuids["VDI"].get(uuid)


def parent(pool, vdi):
    """The parent node's reference or None."""
    return by_uuid(pool, pool.db.get("VDI", vdi, "sm_config").get("vhd-parent"))


def children(pool, node):
    """VDIs whose data are kept on top of the node's; metadata of changed blocks have none."""
    uuid = pool.db.get("VDI", node, "uuid")
    sr = pool.db.get("VDI", node, "SR")
    return [v for v in pool.db.get("SR", sr, "VDIs")
            if pool.db.get("VDI", v, "type") != "cbt_metadata"
            and pool.db.get("VDI", v, "sm_config").get("vhd-parent") == uuid]


def depth(pool, vdi):
    """Number of nodes from the leaf to the root."""
    count, node = 1, parent(pool, vdi)
    while node:
        count, node = count + 1, parent(pool, node)
    return count


def assert_depth(pool, vdi):
    sr = pool.db.get("VDI", vdi, "SR")
    if srs.makes_base_copies(pool, sr) and depth(pool, vdi) >= pool.options["chain_limit"]:
        raise srs.backend_failure(109, "The snapshot chain is too long")


def set_parent(pool, vdi, uuid):
    config = dict(pool.db.get("VDI", vdi, "sm_config"))
    config.pop("vhd-parent", None)
    if uuid:
        config["vhd-parent"] = uuid
    pool.db.set("VDI", vdi, "sm_config", config)


def split(pool, leaf, new):
    """A snapshot or clone was taken: leaf and newcomer become children of a new hidden node."""
    record = pool.db.record("VDI", leaf)
    if not srs.makes_base_copies(pool, record["SR"]):
        return
    if record["is_a_snapshot"] and parent(pool, leaf):
        set_parent(pool, new, record["sm_config"]["vhd-parent"])  # an unchanged sibling
        return
    uuid = new_uuid()
    with pool.acting_as(None, None):
        node = pool.db.create("VDI", {
            "uuid": uuid, "location": uuid, "name_label": "base copy", "SR": record["SR"],
            "virtual_size": record["virtual_size"], "type": record["type"], "managed": False,
            "read_only": True, "sm_config": dict(record["sm_config"])})
    set_parent(pool, leaf, uuid)
    set_parent(pool, new, uuid)
    return node


def coalesce(pool, sr):
    """Merge nodes left with one child, drop those without; returns how many went."""
    config = pool.db.get("SR", sr, "other_config")
    if "false" in (config.get("gc"), config.get("coalesce")):
        return 0
    count = 0
    again = True
    while again:
        again = False
        for vdi in list(pool.db.get("SR", sr, "VDIs")):
            record = pool.db.record("VDI", vdi)
            if record["managed"]:
                continue
            below = children(pool, vdi)
            if len(below) > 1:
                continue
            if below:
                leaf = pool.db.get("VDI", below[0], "managed")
                if leaf and config.get("leaf-coalesce") == "false":
                    continue
                set_parent(pool, below[0], record["sm_config"].get("vhd-parent"))
            pool.db.delete("VDI", vdi)
            count, again = count + 1, True
    if count:
        srs.update_space(pool, sr)
    return count


class Coalescer:
    """Which SRs are due for coalescing; run by the background collector."""

    def __init__(self, pool):
        self.pool, self.due = pool, {}

    def schedule(self, sr):
        delay = self.pool.options["coalesce_delay"]
        if delay >= 0 and sr != NULL:
            self.due.setdefault(sr, time.monotonic() + delay)

    def run(self):
        now = time.monotonic()
        for sr in [s for s, when in self.due.items() if when <= now]:
            del self.due[sr]
            if self.pool.db.has("SR", sr):
                coalesce(self.pool, sr)
