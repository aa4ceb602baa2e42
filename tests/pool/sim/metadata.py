# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recreating VMs from an archive's records: /import_metadata and the record half of /import."""

from . import archive
from .database import new_uuid
from .errors import ApiError
from .model import NULL
from .snapshot import fresh_generation
from .vm import derive_domain_type, new_metrics, remove as remove_vm

NOT_IMPORTED = {"uuid", "allowed_operations", "current_operations", "VBDs", "VIFs", "VGPUs",
                "VTPMs", "VUSBs", "consoles", "snapshots", "children", "metrics", "guest_metrics",
                "crash_dumps", "attached_PCIs", "blobs", "resident_on", "affinity", "suspend_VDI",
                "snapshot_of", "parent", "appliance", "protection_policy", "snapshot_schedule",
                "scheduled_to_be_resident_on", "is_control_domain", "domid", "suspend_SR",
                "is_default_template", "groups"}


class Importer:
    """One import. `disks` maps ids of VDIs in the archive to local references when the disks came
    along; else they are looked up in the pool."""

    def __init__(self, pool, objects, flags, mapping=None, disks=None):
        self.pool, self.db, self.flags = pool, pool.db, flags
        self.mapping, self.disks = mapping or {}, disks
        self.objects = {}
        for cls, id_, record in objects:
            self.objects.setdefault(cls, {})[id_] = archive.typed(cls, record, pool.model) \
                if cls in pool.model.classes else record
            self.objects[cls][id_]["content"] = record.get("content", "")
        self.vdis, self.networks, self.vms = {}, {}, {}
        self.skipped = set()

    def flag(self, name):
        return self.flags.get(name) == "true"

    def run(self):
        """References of the imported VMs that are no snapshots; nothing is made on a dry run."""
        self.find_disks()
        for id_, record in self.objects.get("VM", {}).items():
            self.precheck(id_, record)
        if self.flag("dry_run"):
            return []
        for id_, record in self.objects.get("VM", {}).items():
            if id_ not in self.skipped:
                self.vms[id_] = self.make_vm(id_, record)
        self.relate()
        self.make_devices()
        for ref in self.vms.values():
            self.pool.refresh_vm(ref)
        return [ref for ref in self.vms.values() if not self.db.get("VM", ref, "is_a_snapshot")]

    # ---- disks and networks ----

    def find_disks(self):
        if self.disks is not None:
            self.vdis = dict(self.disks)
            return
        for id_, record in self.objects.get("VDI", {}).items():
            try:
                self.vdis[id_] = self.find_disk(record)
            except ApiError:
                if not self.flag("force"):
                    raise

    def find_disk(self, record):
        """A disk of this pool for one of the archive: mapped, or the same place in the same SR."""
        local = self.mapping.get(record["uuid"]) or self.mapping.get(record.get("location"))
        if local is not None:
            if local not in self.db.uuids["VDI"]:
                raise ApiError("VDI_CONTENT_ID_MISSING")
            return self.db.uuids["VDI"][local]
        maps_to = record.get("other_config", {}).get("maps_to")
        if maps_to:
            self.db.row("VDI", maps_to)
            return maps_to
        sr = self.objects.get("SR", {}).get(record["SR"], {})
        ref = self.db.uuids["SR"].get(sr.get("uuid"))
        candidates = [ref] if ref else []
        if sr.get("content_type") == "iso":
            candidates = self.db.find("SR", content_type="iso")
        for candidate in candidates:
            for vdi in self.db.get("SR", candidate, "VDIs"):
                if self.db.get("VDI", vdi, "location") == record["location"]:
                    return vdi
        if sr.get("content_type") == "iso":
            return NULL  # the drive is emptied
        raise ApiError("VDI_LOCATION_MISSING", ref or record["SR"], record["location"])

    def network(self, id_):
        """The network of the same name, else of the same bridge, else a new one."""
        if id_ not in self.networks:
            record = self.objects.get("network", {}).get(id_)
            if record is None:
                self.networks[id_] = NULL
            else:
                found = self.db.find("network", name_label=record["name_label"]) or \
                    self.db.find("network", bridge=record["bridge"])
                self.networks[id_] = found[0] if found else self.db.create("network", {
                    k: record[k] for k in ("name_label", "name_description", "other_config", "MTU",
                                           "bridge") if k in record})
        return self.networks[id_]

    # ---- virtual machines ----

    def precheck(self, id_, record):
        """May this VM be restored over the one of the same uuid?"""
        if not self.flag("restore"):
            return
        existing = self.db.uuids["VM"].get(record["uuid"])
        if existing is None:
            seed = record["other_config"].get("mac_seed")
            for row in self.db.tables["VM"].values():
                if seed and row.values["other_config"].get("mac_seed") == seed \
                        and not row.values["is_a_snapshot"] and not record["is_a_snapshot"]:
                    raise ApiError("DUPLICATE_MAC_SEED", seed)
            return
        current = self.db.record("VM", existing)
        if current["power_state"] != "Halted":
            if not self.flag("force"):
                raise ApiError("VM_BAD_POWER_STATE", existing, "Halted", current["power_state"])
            self.skipped.add(id_)
        elif record["version"] <= current["version"] and not self.flag("force"):
            raise ApiError("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", existing, current["version"],
                           record["version"])

    def make_vm(self, id_, record):
        values = {k: v for k, v in record.items() if k not in NOT_IMPORTED and k != "content"}
        restore = self.flag("restore")
        values["other_config"] = dict(values["other_config"])
        if restore:
            existing = self.db.uuids["VM"].get(record["uuid"])
            if existing is not None:
                remove_vm(self.pool, existing)
            values.update(uuid=record["uuid"], version=record["version"] + 1)
        else:
            values["other_config"]["mac_seed"] = new_uuid()
            values["version"] = 0
        values.setdefault("has_vendor_device", False)
        if not record["is_a_template"] or record["is_a_snapshot"]:
            values["generation_id"] = fresh_generation(record)
        values["domid"] = -1
        if values["power_state"] != "Suspended" or not self.suspend_image(record):
            values["power_state"] = "Halted"
        else:
            values["suspend_VDI"] = self.suspend_image(record)
        derive_domain_type(values)
        values["metrics"] = new_metrics(self.pool, values)
        return self.db.create("VM", values)

    def suspend_image(self, record):
        return self.vdis.get(record.get("suspend_VDI"))

    def relate(self):
        for id_, ref in self.vms.items():
            record = self.objects["VM"][id_]
            for field in ("snapshot_of", "parent"):
                target = self.vms.get(record.get(field), NULL)
                self.db.set("VM", ref, field, target)

    def make_devices(self):
        for record in self.objects.get("VBD", {}).values():
            if record["VM"] in self.vms:
                self.make_vbd(record)
        for record in self.objects.get("VIF", {}).values():
            if record["VM"] in self.vms:
                self.make_vif(record)
        for record in self.objects.get("VTPM", {}).values():
            if record["VM"] in self.vms:
                ref = self.db.create("VTPM", {
                    "VM": self.vms[record["VM"]], "is_unique": record["is_unique"],
                    "persistence_backend": record["persistence_backend"]})
                self.pool.secrets[ref] = record["content"]

    def make_vbd(self, record):
        values = {k: v for k, v in record.items() if k not in (
            "allowed_operations", "current_operations", "metrics", "content")}
        if not self.flag("restore"):
            values.pop("uuid", None)
        elif values.get("uuid") in self.db.uuids["VBD"]:
            values.pop("uuid")
        if not archive.is_null(record["VDI"]):
            vdi = self.vdis.get(record["VDI"])
            if vdi is None:
                return  # forced: the drive is left out
            values["VDI"] = vdi
            if vdi == NULL:
                values["empty"] = True
        suspended = self.db.get("VM", self.vms[record["VM"]], "power_state") == "Suspended"
        values.update(VM=self.vms[record["VM"]],
                      currently_attached=suspended and record["currently_attached"])
        self.pool.refresh_vbd(self.db.create("VBD", values))

    def make_vif(self, record):
        values = {k: v for k, v in record.items() if k not in (
            "allowed_operations", "current_operations", "metrics", "content")}
        values.update(VM=self.vms[record["VM"]], network=self.network(record["network"]),
                      currently_attached=False)
        if not self.flag("restore"):
            values.pop("uuid", None)
            values["MAC"] = self.pool.derive_mac(values["VM"], record["device"])
            values["MAC_autogenerated"] = True
        elif values.get("uuid") in self.db.uuids["VIF"]:
            values.pop("uuid")
        self.pool.refresh_vif(self.db.create("VIF", values))
