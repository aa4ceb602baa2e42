# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers of the control interface about the pool and about what clients did to it."""


def state(simulator):
    """Overview: hosts, SRs, VMs with disks, sessions, tasks, attachments."""
    pool, db = simulator.pool, simulator.pool.db
    with pool.lock:
        return {
            "pool": db.get("pool", pool.pool_ref(), "uuid"), "coordinator":
                pool.hosts[pool.coordinator()].uuid, "generation": db.generation,
            "hosts": [host_state(pool, h) for h in pool.hosts.values()],
            "srs": [sr_state(pool, r) for r in db.refs("SR")],
            "vms": [vm_state(pool, r) for r in db.refs("VM")
                    if not db.get("VM", r, "is_control_domain")],
            "sessions": [{"ref": s.ref, "user": s.user.name, "originator": s.originator}
                         for s in pool.sessions.values()],
            "tasks": [{"ref": r, **pick(db.record("task", r), "uuid", "name_label", "status",
                                        "progress", "result", "error_info")}
                      for r in db.refs("task")],
            "attachments": [{"vbd": a.vbd, "vdi": a.uuid, "mode": a.mode}
                            for a in pool.attachments.values()],
            "counts": {cls: len(rows) for cls, rows in db.tables.items() if rows}}


def pick(record, *names):
    return {n: record[n] for n in names}


def host_state(pool, host):
    record = pool.db.record("host", host.ref)
    return {"uuid": host.uuid, "name": host.name, "address": host.address, "alive": host.alive,
            "live": pool.host_live(host.ref), "emergency": host.emergency,
            "enabled": record["enabled"], "vms": len(record["resident_VMs"]),
            "nbd": host.nbd is not None}


def sr_state(pool, ref):
    record = pool.db.record("SR", ref)
    return {**pick(record, "uuid", "name_label", "type", "shared", "physical_size",
                   "physical_utilisation", "virtual_allocation"),
            "busy": list(record["current_operations"].values()),
            "vdis": [{**pick(pool.db.record("VDI", v), "uuid", "name_label", "virtual_size",
                             "type", "managed", "is_a_snapshot", "sm_config"),
                      "cbt_enabled": pool.db.record("VDI", v).get("cbt_enabled", False)}
                     for v in record["VDIs"]]}


def vm_state(pool, ref):
    record = pool.db.record("VM", ref)
    disks = []
    for vbd in record["VBDs"]:
        values = pool.db.record("VBD", vbd)
        vdi = values["VDI"]
        disks.append({"device": values["userdevice"], "type": values["type"],
                      "attached": values["currently_attached"],
                      "vdi": pool.db.get("VDI", vdi, "uuid") if pool.db.has("VDI", vdi) else None})
    return {**pick(record, "uuid", "name_label", "power_state", "is_a_template", "is_a_snapshot",
                   "blocked_operations"),
            "host": pool.hosts[record["resident_on"]].uuid
            if record["resident_on"] in pool.hosts else None, "disks": disks}


def calls(pool, since, method, originator):
    """The log of calls, oldest first."""
    with pool.lock:
        return {"calls": [dict(c) for c in pool.calls
                          if c["time"] > float(since) and method in (None, c["method"])
                          and originator in (None, c["originator"])]}


def made(pool, originator, leftovers):
    """What each client made: rows, map entries, and whether they are still there."""
    with pool.lock:
        rows = [dict(m, exists=pool.db.has(m["class"], m["ref"])) for m in pool.made
                if originator in (None, m["originator"])]
        marks = []
        for mark in pool.marks:
            if originator not in (None, mark["originator"]):
                continue
            there = pool.db.has(mark["class"], mark["ref"]) and \
                mark["key"] in pool.db.get(mark["class"], mark["ref"], mark["field"])
            marks.append(dict(mark, exists=there))
        attachments = [{"vdi": a.uuid, "mode": a.mode} for a in pool.attachments.values()]
        if leftovers in (True, "true", "1"):
            rows = [r for r in rows if r["exists"]]
            marks = [m for m in marks if m["exists"]]
        return {"objects": rows, "entries": marks, "attachments": attachments}
