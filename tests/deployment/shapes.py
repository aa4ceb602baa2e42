# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scenarios of deployments: random small ones, a wide one, and names that mean harm."""

import random

NETWORK = "Management"


def proxy(name, host):
    """A VM that a proxy runs on."""
    return {"name": name, "power_state": "Running", "host": host, "memory": "64 MiB",
            "tags": ["proxy"]}


def guest(name, host, srs):
    """A VM with a disk on each SR; host None: halted."""
    made = {"name": name, "power_state": "Running" if host else "Halted", "memory": "64 MiB",
            "disks": [{"sr": sr, "size": "8 MiB"} for sr in srs]}
    if host:
        made["host"] = host
    return made


def scene(name, hosts, srs, vms):
    """A scenario; `srs` maps names to hosts."""
    return {"name": name, "hosts": [{"name": host, "memory": "4 TiB"} for host in hosts],
            "srs": [{"name": sr, "type": "nfs" if len(where) != 1 else "ext", "hosts": where,
                     "shared": len(where) != 1, "size": "64 TiB"} for sr, where in srs.items()],
            "networks": [{"name": NETWORK, "purpose": ["nbd"]}], "vms": vms}


def small(seed):
    """A few hosts, SRs, proxies and VMs at random, so few that every answer can be tried out."""
    rng = random.Random(seed)
    hosts = ["host-%d" % i for i in range(1, rng.randint(2, 5) + 1)]
    srs = {"SR-%d" % i: rng.sample(hosts, rng.randint(0 if i == 4 else 1, min(3, len(hosts))))
           for i in range(1, rng.randint(2, 4) + 1)}
    vms = [proxy("proxy-%d" % i, rng.choice(hosts)) for i in range(1, rng.randint(0, 4) + 1)]
    for i in range(rng.randint(1, 6)):
        disks = [rng.choice(list(srs)) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        where = [host for host in hosts if all(host in srs[sr] for sr in disks)]
        vms.append(guest("vm-%d" % i, rng.choice(where + [None]) if where else None, disks))
    return scene("small-%d" % seed, hosts, srs, vms)


def wide(hosts=64, srs=40, proxies=70, vms=400, seed=1):
    """A pool at the size of the largest: clusters of four hosts, SRs across them, local ones."""
    rng = random.Random(seed)
    names = ["host-%02d" % i for i in range(1, hosts + 1)]
    storage = {"Everywhere": names}
    for i in range(0, hosts, 4):
        storage["Cluster %d" % (i // 4 + 1)] = names[i:i + 4]
    for i in range(0, hosts, 8):
        storage["Archive of clusters %d and %d" % (i // 4 + 1, i // 4 + 2)] = names[i:i + 8]
    for i in range(1, 5):
        storage["Scattered %d" % i] = rng.sample(names, 6)
    while len(storage) < srs:
        host = rng.choice(names)
        storage["Local storage of %s" % host] = [host]
    machines = [proxy("proxy-%02d" % (i + 1), names[i] if i < hosts - 14 else
                      rng.choice(names[:hosts - 8])) for i in range(proxies)]
    for i in range(vms):
        host = rng.choice(names) if rng.random() < 0.85 else None
        reached = [sr for sr, where in storage.items() if host in where or (
            host is None and rng.random() < 0.3)] or ["Everywhere"]
        machines.append(guest("server-%04d.example" % i, host,
                              [rng.choice(reached) for _ in range(rng.choice((1, 1, 2, 3)))]))
    return scene("Sixty-four hosts", names, storage, machines)


HOSTILE = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'; DROP TABLE vms; --",
           "</title></svg><svg onload=alert(1)>", "&lt;b&gt; & co.", "]]><!-- --><![CDATA[",
           "\u202egnp.exe", "a\u200bb\ufeffc", "e" + "\u0301" * 40, "\u4e2d\u6587\u540d\u79f0" * 12,
           "\U0001f4be" * 20, "W" * 300, " ", "{{7*7}}%s%n", "javascript:alert(1)"]


def hostile():
    """Names that mean harm, except those of hosts, which are to be renamed in the running pool:
    the simulator puts them into certificates."""
    hosts = ["host-%d" % i for i in range(6)]
    srs = {name: hosts[:2 + i % 4] if i % 3 else [hosts[i % 6]]
           for i, name in enumerate(HOSTILE[3:12])}
    vms = [proxy(name, hosts[i % 6]) for i, name in enumerate(HOSTILE[:8])]
    for i, name in enumerate(HOSTILE):
        sr = list(srs)[i % len(srs)]
        vms.append(guest(name + " VM", srs[sr][0] if i % 2 else None, [sr]))
    return {**scene("hostile", hosts, srs, vms), "pool": {"name": HOSTILE[0]}}
