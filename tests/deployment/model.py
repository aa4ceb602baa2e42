# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reach and advice tried out: what a scenario means, by counting instead of reasoning."""

import itertools


class Model:
    """A scenario's hosts, SRs and VMs; `proxies` are pairs of name and host."""

    def __init__(self, scene):
        self.hosts = [host["name"] for host in scene["hosts"]]
        self.attached = {sr["name"]: set(sr["hosts"]) for sr in scene["srs"]}
        self.proxies = [(vm["name"], vm["host"]) for vm in scene["vms"]
                        if "proxy" in vm.get("tags", [])]
        self.vms = {vm["name"]: {disk["sr"] for disk in vm["disks"]} for vm in scene["vms"]
                    if "proxy" not in vm.get("tags", [])}

    def is_reached(self, vm, hosts):
        """Whether every disk of a VM is reached by a proxy on some of the hosts."""
        return all(self.attached[sr] & set(hosts) for sr in self.vms[vm])

    def hosts_of(self, added=()):
        """Hosts of all proxies, one entry a proxy."""
        return [host for _, host in self.proxies] + list(added)

    def lost_with_proxy(self, name):
        """VMs that are reached now, and not without a proxy."""
        rest = [host for other, host in self.proxies if other != name]
        return {vm for vm in self.vms if self.is_reached(vm, self.hosts_of()) and
                not self.is_reached(vm, rest)}

    def lost_with_host(self, name):
        """VMs that are reached now, and not without a host."""
        rest = [host for host in self.hosts_of() if host != name]
        return {vm for vm in self.vms if self.is_reached(vm, self.hosts_of()) and
                not self.is_reached(vm, rest)}

    def meets(self, vm, goal, hosts, lenient=False):
        """Whether a VM meets a goal with proxies on hosts. Lenient: losing a host that some SR of
        the VM is attached to alone does not count."""
        if not self.is_reached(vm, hosts):
            return False
        if goal == "reach":
            return True
        for i in range(len(hosts)):
            if not self.is_reached(vm, hosts[:i] + hosts[i + 1:]):
                return False
        if goal == "proxy-loss":
            return True
        for lost in set(hosts):
            inherent = any(self.attached[sr] == {lost} for sr in self.vms[vm])
            if not (lenient and inherent) and not self.is_reached(
                    vm, [host for host in hosts if host != lost]):
                return False
        return True

    def curable(self, vm, goal):
        """Whether enough proxies would bring a VM to a goal."""
        return self.meets(vm, goal, self.hosts_of(self.hosts * 2))

    def is_cure(self, goal, added):
        """Whether further proxies bring every VM to a goal as far as that can be."""
        hosts = self.hosts_of(added)
        best = self.hosts_of(self.hosts * 2)
        return all(self.meets(vm, goal, hosts, lenient=True) for vm in self.vms
                   if self.meets(vm, goal, best, lenient=True))

    def cured_by_fewer(self, goal, count):
        """Some cure of fewer than `count` proxies, or None."""
        for size in range(count):
            for added in itertools.combinations_with_replacement(self.hosts, size):
                if self.is_cure(goal, added):
                    return added
        return None
