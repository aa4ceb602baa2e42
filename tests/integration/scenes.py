# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scenarios for the pool simulator: two hosts with shared and local storage and a proxy on each."""

MIB = 1 << 20
CHUNK = 64 << 10
SHARED_SR, LOCAL_A, LOCAL_B = "Shared storage", "Local storage A", "Local storage B"
NETWORK = "Management network"
PROXIES = ("proxy-a", "proxy-b")
HOSTS = ("host-a", "host-b")


def disk(size=8 * MIB, seed=1, data=2 * MIB, sr=SHARED_SR, **more):
    """A disk of which the first `data` bytes are random."""
    return {"sr": sr, "size": size, "generate": {"seed": seed, "bytes": data}, **more}


def vm(name, *disks, **more):
    """A running VM on the first host with one interface; `disks` default to one."""
    made = {"name": name, "power_state": "Running", "host": HOSTS[0], "memory": 128 * MIB,
            "disks": list(disks), "vifs": [{"network": NETWORK}]}
    made.update(more)
    if made["power_state"] == "Halted":
        del made["host"]
    return made


def proxy(name, host):
    """A VM that a proxy runs on."""
    return vm(name, host=host, vifs=[])


def scene(*vms, srs=None, networks=None, options=None, proxies=True, hosts=HOSTS, **more):
    """A whole scenario with the given VMs."""
    machines = [proxy(name, host) for name, host in zip(PROXIES, hosts)] if proxies else []
    return {
        "name": "integration",
        "hosts": [{"name": name} for name in hosts],
        "srs": srs or [
            {"name": SHARED_SR, "type": "nfs", "shared": True, "size": "1 TiB", "default": True},
            {"name": LOCAL_A, "type": "ext", "hosts": [hosts[0]], "size": "1 TiB"},
            {"name": LOCAL_B, "type": "ext", "hosts": [hosts[-1]], "size": "1 TiB"}],
        "networks": networks or [{"name": NETWORK, "purpose": ["nbd"]}],
        "vms": machines + list(vms),
        "options": options or {}, **more}
