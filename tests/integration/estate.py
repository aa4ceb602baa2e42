# SPDX-License-Identifier: LGPL-2.1-or-later
"""The deployments of tests/pool/scenarios, each as running pools and one configuration for all."""

import json
import os

from deployment import Deployment
from simpool import SOURCE, SimPool

SCENARIOS = os.path.join(SOURCE, "tests", "pool", "scenarios")
# Scenario files of a deployment by number; each file is a pool.
DEPLOYMENTS = {1: ("deployment-1",), 2: ("deployment-2a", "deployment-2b")}
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def read_scenario(name, scale=1, options=None):
    """A scenario file with disks, and the data in those that hold any, `scale` times as large."""
    with open(os.path.join(SCENARIOS, name + ".json"), encoding="utf-8") as file:
        scene = json.load(file)
    for vm in scene["vms"]:
        for disk in vm["disks"]:
            if "generate" in disk:
                number, unit = disk["size"].split()
                disk["size"] = int(int(number) * UNITS[unit] * scale)
                disk["generate"]["bytes"] = int(disk["generate"]["bytes"] * scale)
    scene.setdefault("options", {}).update(options or {})
    return scene


def proxies_of(scene):
    """Names of the proxy VMs in their order."""
    return [vm["name"] for vm in scene["vms"] if "proxy" in vm.get("tags", [])]


def guests_of(scene):
    """Names of the VMs to be backed up, in their order."""
    return [vm["name"] for vm in scene["vms"] if "backup" in vm.get("tags", [])]


class Estate:
    """Running pools by scenario name ("deployment-2a"), in the order of the deployment."""

    def __init__(self, folder, number, scale=1, tls=True, options=None):
        self.scenes, self.pools = {}, {}
        try:
            for name in DEPLOYMENTS[number]:
                self.scenes[name] = read_scenario(name, scale, options)
                self.pools[name] = SimPool(os.path.join(folder, name), self.scenes[name], tls=tls)
        except BaseException:
            self.stop()
            raise

    def deploy(self, folder, **pool_members):
        """A configuration that knows every pool by its scenario name, with its proxies in order."""
        site = None
        for name, pool in self.pools.items():
            proxies = proxies_of(self.scenes[name])
            if site is None:
                site = Deployment(folder, pool, proxies, name=name, **pool_members)
            else:
                site.add_pool(name, pool, proxies, **pool_members)
        return site

    def stop(self):
        """Ends the pools' processes."""
        for pool in self.pools.values():
            pool.stop()
