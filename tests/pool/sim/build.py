# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a checked scenario to a pool's records and disks."""

import os
import random

from . import power, session as sessions, sr as srs, vbd, vdi as vdis, vdi_checks, vif, vm_checks
from .errors import ScenarioError
from .model import NULL, api_minor, product_of
from .pool import Host
from .vm import new_metrics

CHUNK = 65536
# Licensed features: pool.restrictions holds "restrict_" and the name, "false" when it is allowed.
RESTRICTIONS = (
    "ad certificate_verification checkpoint connection corosync cpu_masking dmc dr "
    "email_alerting equalogic export_resource_data gpu guest_agent_auto_update guest_ip_setting "
    "ha historical_performance igmp_snooping integrated_gpu_passthrough intellicache "
    "internal_repo_access live_patching marathon nested_virt netapp network_sriov "
    "pci_device_for_auto_update pool_attached_storage pool_secret_rotation pool_size pooling "
    "pvs_proxy qos rbac rpu set_vcpus_number_live storage_xen_motion updates usb_passthrough "
    "vgpu vif_locking vlan vmpr vmss vss vswitch_controller vtpm wlb xen_motion "
    "zstd_export").split()


def build(pool, plan):
    """Make everything of the plan. Hosts have no listeners yet."""
    db = pool.db
    with db.lock:
        db.bulk = pool.loading = True
        pool_ref = db.create("pool", {
            "uuid": plan["pool"]["uuid"], "name_label": plan["pool"]["name"],
            "other_config": plan["pool"]["other_config"]})
        restrictions(pool, pool_ref)
        hosts = {h["name"]: add_host(pool, h) for h in plan["hosts"]}
        db.set("pool", pool_ref, "master", next(iter(hosts.values())))
        networks = {n["name"]: add_network(pool, n, hosts) for n in plan["networks"]}
        repositories = {s["name"]: add_sr(pool, s, hosts) for s in plan["srs"]}
        db.set("pool", pool_ref, "ha_enabled", pool.options["ha_failover"] > 0)
        choose_default_sr(pool, pool_ref, plan, repositories)
        add_users(pool, plan["users"])
        disks = {}
        vms = [(add_vm(pool, v, hosts, networks, repositories, disks, plan["base"]), v)
               for v in plan["vms"]]
        db.relink()
        db.bulk = False
        for ref, vm in vms:
            if vm["power_state"] != "Halted":
                run(pool, ref, vm, hosts, len(vms))
        pool.loading = False
        refresh_all(pool)
        for rule in plan["faults"]:
            pool.faults.add(rule)


def restrictions(pool, pool_ref):
    values = {"restrict_" + name: "false" for name in RESTRICTIONS}
    values.update({"enable_xha": "true", "platform_filter": "false", "regular_nag_dialog": "false"})
    values["restrict_cbt"] = "false" if pool.options["cbt_licence"] else "true"
    values.update(pool.options["restrictions"])
    pool.db.set("pool", pool_ref, "restrictions", values)


def choose_default_sr(pool, pool_ref, plan, repositories):
    chosen = [s["name"] for s in plan["srs"] if s["default"]] or \
             [s["name"] for s in plan["srs"] if s["shared"] and s["content_type"] == "user"]
    if chosen:
        pool.db.update("pool", pool_ref, default_SR=repositories[chosen[0]])


def add_users(pool, users):
    pool.users["root"] = sessions.User("root", pool.options["password"], "pa")
    for user in users:
        subject = pool.db.create("subject", {
            "subject_identifier": "S-" + user["name"],
            "other_config": {"subject-name": user["name"]}})
        pool.users[user["name"]] = sessions.User(user["name"], user["password"], user["role"],
                                                 subject)


def add_host(pool, plan):
    db = pool.db
    metrics = db.create("host_metrics", {"live": True, "memory_total": plan["memory"],
                                         "memory_free": plan["memory"] // 2})
    version = pool.options["version"]
    short = ".".join(version.split(".")[:2]) if version[0].isdigit() else version
    ref = db.create("host", {
        "uuid": plan["uuid"], "name_label": plan["name"], "hostname": plan["name"],
        "name_description": "Simulated host", "metrics": metrics, "enabled": True,
        "address": plan["address"], "API_version_major": 2,
        "API_version_minor": api_minor(version), "API_version_vendor": "XenSource",
        "software_version": {
            "product_brand": "XCP-ng", "product_version": product_of(version),
            "platform_version": "3.4.0",
            "xapi": short, "xapi_build": version, "build_number": "simulator",
            "date": "20240711T00:00:00Z", "hostname": plan["name"]},
        "edition": "xcp-ng", "sched_policy": "credit",
        "cpu_info": {"cpu_count": "8", "vendor": "GenuineIntel", "socket_count": "1",
                     "modelname": "Simulated CPU", "features_hvm": "0", "features_pv": "0"},
        "license_params": dict(db.get("pool", pool.pool_ref(), "restrictions"))})
    host = Host(ref, plan["uuid"], plan["name"])
    host.address = plan["address"]
    host.emergency = plan["emergency"] or None
    pool.hosts[ref] = host
    add_control_domain(pool, host)
    return ref


def add_control_domain(pool, host):
    db = pool.db
    values = {"name_label": "Control domain on host: " + host.name, "is_control_domain": True,
              "power_state": "Running", "resident_on": host.ref, "domid": 0,
              "memory_static_max": 1 << 30, "memory_dynamic_max": 1 << 30,
              "memory_dynamic_min": 1 << 30, "memory_static_min": 1 << 29, "VCPUs_max": 4,
              "VCPUs_at_startup": 4, "domain_type": "pv"}
    values["metrics"] = new_metrics(pool, values)
    ref = db.create("VM", values)
    for protocol in ("rfb", "vt100"):
        db.create("console", {"protocol": protocol, "VM": ref,
                              "location": "https://%s/console?ref=%s" % (host.address, ref)})
    db.set("host", host.ref, "control_domain", ref)


def add_network(pool, plan, hosts):
    db = pool.db
    first = not db.tables["network"]
    ref = db.create("network", {
        "uuid": plan["uuid"], "name_label": plan["name"], "bridge": plan["bridge"], "MTU": 1500,
        "managed": True, "purpose": plan["purpose"]})
    for index, name in enumerate(plan["hosts"]):
        metrics = db.create("PIF_metrics", {"carrier": True, "speed": 10000})
        db.create("PIF", {
            "device": plan["bridge"].replace("xenbr", "eth"), "network": ref, "host": hosts[name],
            "MAC": "52:54:00:%02x:%02x:%02x" % (len(db.tables["network"]), index >> 8, index & 255),
            "MTU": 1500, "VLAN": -1, "physical": True, "currently_attached": True,
            "ip_configuration_mode": "Static", "netmask": "255.0.0.0", "managed": True,
            "IP": pool.hosts[hosts[name]].address, "management": first, "metrics": metrics})
    return ref


def add_sr(pool, plan, hosts):
    ref = srs.make_sr(pool, {
        "uuid": plan["uuid"], "name_label": plan["name"], "type": plan["type"],
        "shared": plan["shared"], "content_type": plan["content_type"],
        "physical_size": plan["size"], "other_config": plan["other_config"]})
    if plan["filled"]:
        pool.filled[ref] = plan["filled"]
    for name in plan["hosts"]:
        pool.db.create("PBD", {"host": hosts[name], "SR": ref, "currently_attached": True,
                               "device_config": {"location": "/simulated/" + plan["name"]}})
    return ref


def add_vm(pool, plan, hosts, networks, repositories, disks, base):
    db = pool.db
    config = dict(plan["other_config"])
    config.setdefault("mac_seed", plan["uuid"])
    if not plan["guest_tools"]:
        config["sim-guest-tools"] = "false"
    values = {
        "uuid": plan["uuid"], "name_label": plan["name"], "name_description": plan["description"],
        "user_version": 1, "memory_target": plan["memory"], "memory_static_max": plan["memory"],
        "memory_dynamic_max": plan["memory"], "memory_dynamic_min": plan["memory"],
        "memory_static_min": min(plan["memory"], 16 << 20), "VCPUs_max": plan["vcpus"],
        "VCPUs_at_startup": plan["vcpus"], "other_config": config, "tags": plan["tags"],
        "actions_after_shutdown": "destroy", "actions_after_reboot": "restart",
        "actions_after_crash": "restart", "domain_type": "hvm" if plan["hvm"] else "pv",
        "HVM_boot_policy": "BIOS order" if plan["hvm"] else "",
        "HVM_boot_params": {"order": "cd", "firmware": "uefi" if plan["NVRAM"] else "bios"}
        if plan["hvm"] else {}, "platform": plan["platform"] or {"acpi": "1", "apic": "true"},
        "NVRAM": plan["NVRAM"], "domid": -1, "blocked_operations": plan["blocked_operations"],
        "affinity": hosts.get(plan["affinity"], NULL), "is_a_template": plan["template"],
        "has_vendor_device": False, "generation_id": "1:%d" % int(plan["uuid"][:8], 16)}
    values["metrics"] = new_metrics(pool, values)
    ref = db.create("VM", values)
    for disk in plan["disks"]:
        add_disk(pool, ref, disk, repositories, disks, base)
    if plan["cd"]:
        db.create("VBD", {"VM": ref, "VDI": NULL, "userdevice": "3", "type": "CD", "mode": "RO",
                          "empty": True, "unpluggable": True})
    for vif in plan["vifs"]:
        db.create("VIF", {
            "VM": ref, "network": networks[vif["network"]], "device": vif["device"], "MTU": 1500,
            "MAC": vif["mac"] or pool.derive_mac(ref, vif["device"]),
            "MAC_autogenerated": not vif["mac"]})
    if plan["has_vtpm"] and "VTPM" in db.tables:
        vtpm = db.create("VTPM", {"VM": ref, "persistence_backend": "xapi"})
        pool.secrets[vtpm] = plan["vtpm"]
    return ref


def add_disk(pool, vm, plan, repositories, disks, base):
    db = pool.db
    if plan["shared_with"]:
        if plan["shared_with"] not in disks:
            raise ScenarioError("disk %r: 'shared_with' names no earlier disk" % plan["name"])
        vdi = disks[plan["shared_with"]]
    else:
        vdi = make_disk(pool, plan, repositories[plan["sr"]], base)
        disks[plan["name"]] = vdi
    db.create("VBD", {
        "VM": vm, "VDI": vdi, "userdevice": plan["device"], "bootable": plan["bootable"],
        "mode": plan["mode"], "type": "Disk", "unpluggable": True, "empty": False,
        "other_config": {"owner": ""}})


def make_disk(pool, plan, sr, base):
    """The record and content of a disk; content of an earlier run with the same data directory
    is kept."""
    store, uuid, size = pool.store, plan["uuid"], plan["size"]
    source = os.path.join(base, plan["source"]) if plan["source"] else None
    if source:
        if not os.path.isfile(source):
            raise ScenarioError("disk %r: no file %s" % (plan["name"], source))
        size = size or os.path.getsize(source)
    size = vdis.rounded(pool, sr, size)
    if not store.exists(uuid):
        store.create(uuid, size)
        if source:
            copy_in(store, uuid, source)
        elif plan["generate"]:
            generate(store, uuid, size, plan["generate"])
        if plan["cbt"]:
            store.cbt_enable(uuid)
    return pool.db.create("VDI", {
        "uuid": uuid, "location": uuid, "name_label": plan["name"], "SR": sr,
        "virtual_size": store.size(uuid), "type": plan["type"], "managed": True,
        "sharable": plan["sharable"], "tags": plan["tags"], "on_boot": plan["on_boot"],
        "cbt_enabled": store.cbt_enabled(uuid)})


def copy_in(store, uuid, path, offset=0):
    """Write a file's non-zero pieces into a disk."""
    zero = bytes(1 << 20)
    with open(path, "rb") as source:
        while data := source.read(1 << 20):
            if data != zero[:len(data)]:
                store.write(uuid, offset, data)
            offset += len(data)
    return offset


def generate(store, uuid, size, rule):
    """Fill random chunks of a disk: `bytes` of data, reproducible by `seed`."""
    rng = random.Random(rule.get("seed", 1))
    chunk = int(rule.get("chunk", CHUNK))
    count = min(size, int(rule.get("bytes", size))) // chunk
    places = sorted(rng.sample(range(size // chunk), min(count, size // chunk)))
    for place in places:
        store.write(uuid, place * chunk, rng.randbytes(chunk))


def run(pool, ref, plan, hosts, count):
    host = hosts.get(plan["host"]) or next(iter(hosts.values()))
    if count > 1000:
        pool.next_domid += 1
    power.run_on(pool, ref, host, plan["power_state"])


def refresh_all(pool):
    """allowed_operations and space of everything."""
    for cls, refresh in (("VM", vm_checks.refresh), ("VBD", vbd.refresh), ("VIF", vif.refresh),
                         ("VDI", vdi_checks.refresh)):
        for ref in pool.db.refs(cls):
            refresh(pool, ref)
    for ref in pool.db.refs("SR"):
        srs.update_space(pool, ref)
        srs.refresh(pool, ref)
