# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of a VM: start, stop, suspend, migrate."""

from . import clock, vbd as vbds, vm_checks
from .calls import call
from .errors import ApiError
from .model import NULL
from .vdi import make, remove as remove_vdi
from .vm import assert_fits, held, possible_hosts

GUEST_OTHER = {"feature-shutdown": "1", "feature-reboot": "1", "feature-suspend": "1",
               "feature-vcpu-hotplug": "1", "feature-balloon": "1"}


def choose_host(ctx, vm):
    affinity = ctx.get("VM", vm, "affinity")
    hosts = possible_hosts(ctx, vm)
    if affinity in hosts:
        return affinity
    if not hosts:
        raise ApiError("NO_HOSTS_AVAILABLE")
    return min(hosts, key=lambda h: len(ctx.get("host", h, "resident_VMs")))


def run_on(pool, vm, host, state="Running"):
    """Make the records of a running domain."""
    db = pool.db
    record = db.record("VM", vm)
    db.update("VM", vm, power_state=state, resident_on=host, domid=pool.next_domid,
              last_boot_CPU_flags={"vendor": "GenuineIntel", "features": "0"})
    pool.next_domid += 1
    for vbd in record["VBDs"]:
        if db.get("VBD", vbd, "VDI") != NULL or db.get("VBD", vbd, "type") == "CD":
            vbds.attach(pool, vbd)
    for vif in record["VIFs"]:
        db.set("VIF", vif, "currently_attached", True)
    if db.has("VM_metrics", record["metrics"]):
        db.update("VM_metrics", record["metrics"], start_time=clock.text(),
                  memory_actual=record["memory_dynamic_max"],
                  VCPUs_number=record["VCPUs_at_startup"])
    if not record["bios_strings"]:
        from .vm import BIOS_DEFAULTS
        db.set("VM", vm, "bios_strings", dict(BIOS_DEFAULTS))
    if record["other_config"].get("sim-guest-tools", "true") == "true":
        start_agent(pool, vm)
    pool.refresh_vm(vm)


def start_agent(pool, vm):
    """The guest's tools report."""
    metrics = pool.db.create("VM_guest_metrics", {
        "os_version": {"name": "Debian GNU/Linux 12 (bookworm)", "distro": "debian", "major": "12",
                       "minor": "0", "uname": "6.1.0"},
        "PV_drivers_version": {"major": "7", "minor": "30", "micro": "0", "build": "1"},
        "PV_drivers_detected": True, "PV_drivers_up_to_date": True, "live": True,
        "networks": {}, "other": dict(GUEST_OTHER), "can_use_hotplug_vbd": "yes",
        "can_use_hotplug_vif": "yes", "last_updated": clock.text()})
    pool.db.set("VM", vm, "guest_metrics", metrics)


def stop(pool, vm, state="Halted", crash=False):
    """Undo run_on; a crash leaves the tracking logs of written disks inconsistent."""
    db = pool.db
    record = db.record("VM", vm)
    for vbd in record["VBDs"]:
        if crash:
            mark_crashed(pool, db.record("VBD", vbd))
        if state != "Suspended":
            vbds.detach(pool, vbd)
    if state != "Suspended":
        for vif in record["VIFs"]:
            db.set("VIF", vif, "currently_attached", False)
    if db.has("VM_guest_metrics", record["guest_metrics"]):
        db.delete("VM_guest_metrics", record["guest_metrics"])
    db.update("VM", vm, power_state=state, resident_on=NULL, domid=-1, guest_metrics=NULL,
              scheduled_to_be_resident_on=NULL)
    if state == "Halted" and db.has("VDI", record["suspend_VDI"]):
        remove_vdi(pool, record["suspend_VDI"])
    if state == "Halted":
        db.set("VM", vm, "suspend_VDI", NULL)
    pool.refresh_vm(vm)


def mark_crashed(pool, vbd):
    if vbd["VDI"] == NULL or not vbd["currently_attached"] or vbd["mode"] != "RW":
        return
    disk = pool.db.record("VDI", vbd["VDI"])
    if disk.get("cbt_enabled") and pool.store.exists(disk["uuid"]):
        pool.store.mark_inconsistent(disk["uuid"])


@call("VM.start")
def start(ctx, vm, start_paused, force):
    with held(ctx, vm, "start"):
        begin(ctx, vm, choose_host(ctx, vm), start_paused)


@call("VM.start_on")
def start_on(ctx, vm, host, start_paused, force):
    ctx.db.row("host", host)
    with held(ctx, vm, "start_on"):
        assert_fits(ctx, vm, host)
        begin(ctx, vm, host, start_paused)


def begin(ctx, vm, host, paused):
    record = ctx.db.record("VM", vm)
    if record["VCPUs_at_startup"] < 1:
        raise ApiError("VM_NO_VCPUS", vm)
    ctx.pool.assert_host(host)
    for vbd in record["VBDs"]:
        values = ctx.db.record("VBD", vbd)
        if values["VDI"] != NULL:
            vbds.check_disk(ctx.pool, vbd, values)
    run_on(ctx.pool, vm, host, "Paused" if paused else "Running")


def forwarded(ctx, vm):
    """Calls about a running VM go to its host."""
    host = ctx.get("VM", vm, "resident_on")
    if host != NULL:
        ctx.pool.assert_host(host)


def simple(name, state=None, **fields):
    """A power call that only changes the state."""
    def handler(ctx, vm):
        with held(ctx, vm, name):
            forwarded(ctx, vm)
            if state == "Halted":
                stop(ctx.pool, vm)
            elif state:
                ctx.set("VM", vm, power_state=state)
            else:
                host = ctx.get("VM", vm, "resident_on")
                stop(ctx.pool, vm)
                run_on(ctx.pool, vm, host)
    call("VM." + name)(handler)


simple("pause", "Paused")
simple("unpause", "Running")
simple("clean_shutdown", "Halted")
simple("hard_shutdown", "Halted")
simple("shutdown", "Halted")
simple("clean_reboot")
simple("hard_reboot")


@call("VM.suspend")
def suspend(ctx, vm):
    with held(ctx, vm, "suspend"):
        forwarded(ctx, vm)
        suspend_to_disk(ctx, vm)


def suspend_to_disk(ctx, vm):
    record = ctx.db.record("VM", vm)
    sr = next((s for s in (record["suspend_SR"],
                           ctx.get("pool", ctx.pool.pool_ref(), "suspend_image_SR"),
                           ctx.get("pool", ctx.pool.pool_ref(), "default_SR"))
               if ctx.db.has("SR", s)), None)
    if sr is None:
        raise ApiError("VM_NO_SUSPEND_SR", vm)
    vdi = make(ctx.pool, sr, max(2 << 20, 2 << 20), {
        "name_label": "Suspend image", "type": "suspend", "other_config": {}})
    stop(ctx.pool, vm, "Suspended")
    ctx.set("VM", vm, suspend_VDI=vdi, last_booted_record="('struct')")
    ctx.pool.refresh_vm(vm)


@call("VM.resume")
def resume(ctx, vm, start_paused, force):
    with held(ctx, vm, "resume"):
        wake(ctx, vm, choose_host(ctx, vm), start_paused)


@call("VM.resume_on")
def resume_on(ctx, vm, host, start_paused, force):
    with held(ctx, vm, "resume_on"):
        assert_fits(ctx, vm, host)
        wake(ctx, vm, host, start_paused)


def wake(ctx, vm, host, paused):
    image = ctx.get("VM", vm, "suspend_VDI")
    run_on(ctx.pool, vm, host, "Paused" if paused else "Running")
    ctx.set("VM", vm, suspend_VDI=NULL)
    if ctx.db.has("VDI", image):
        remove_vdi(ctx.pool, image)


@call("VM.power_state_reset")
def power_state_reset(ctx, vm):
    vm_checks.check(ctx.pool, vm, "power_state_reset", ctx.key)
    stop(ctx.pool, vm, crash=True)


@call("VM.pool_migrate")
def pool_migrate(ctx, vm, host, options):
    ctx.db.row("host", host)
    with held(ctx, vm, "pool_migrate"):
        assert_fits_for_migration(ctx, vm, host)
        ctx.pool.assert_host(host)
        ctx.set("VM", vm, scheduled_to_be_resident_on=host)
        ctx.pool.faults.hit("migrate", [vm])
        ctx.set("VM", vm, resident_on=host, scheduled_to_be_resident_on=NULL)


def assert_fits_for_migration(ctx, vm, host):
    if ctx.get("VM", vm, "resident_on") != host:
        assert_fits(ctx, vm, host)


@call("VM.migrate_send")
def migrate_send(ctx, vm, dest, live, vdi_map, vif_map, options, vgpu_map=None,
                 vdi_format_map=None):
    with held(ctx, vm, "migrate_send"):
        for vdi in vm_checks.disks(ctx.pool, ctx.db.record("VM", vm)):
            if ctx.get("VDI", vdi, "cbt_enabled"):
                raise ApiError("VDI_CBT_ENABLED", vdi)
        raise ApiError("VM_MIGRATE_FAILED", vm, "", "",
                       "the simulator's pool has no other pool to migrate to")


@call("VM.atomic_set_resident_on")
def atomic_set_resident_on(ctx, vm, host):
    ctx.set("VM", vm, resident_on=host)
