# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which proxy moves which disk, and VMs that no proxy reaches."""

import unittest

from harness import OK, PARTIAL, REFUSED, PoolCase
from scenes import LOCAL_A, LOCAL_B, SHARED_SR, disk, scene, vm

ROOMS = [{"name": SHARED_SR, "type": "nfs", "shared": True, "size": "1 TiB", "default": True},
         {"name": "Room A", "type": "nfs", "shared": True, "hosts": ["host-a", "host-c"],
          "size": "1 TiB"},
         {"name": "Room B", "type": "nfs", "shared": True, "hosts": ["host-b", "host-c"],
          "size": "1 TiB"},
         {"name": LOCAL_A, "type": "ext", "hosts": ["host-a"], "size": "1 TiB"},
         {"name": "Local storage C", "type": "ext", "hosts": ["host-c"], "size": "1 TiB"}]


class Reach(PoolCase):
    """Three hosts, proxies on two of them, storage that is split between the hosts."""

    scene = scene(
        vm("a", disk(seed=1, sr="Room A")),
        vm("b", disk(seed=2, sr="Room B"), host="host-b"),
        vm("both", disk(seed=3, sr="Room A"), disk(seed=4, sr="Room B"), host="host-c"),
        vm("lonely", disk(seed=5, sr="Local storage C"), host="host-c"),
        vm("mixed", disk(seed=6), disk(seed=7, sr="Local storage C"), host="host-c"),
        vm("spread", *[disk(seed=10 + i) for i in range(4)], host="host-c"),
        srs=ROOMS, hosts=("host-a", "host-b", "host-c"))

    def test_disks_go_to_proxies_that_reach(self):
        report = self.backup("a", "b", "both")
        self.assertEqual(report.disk("a")["proxy"], "proxy-a")
        self.assertEqual(report.disk("b")["proxy"], "proxy-b")
        self.assertEqual([entry["proxy"] for entry in report.vm("both")["disks"]],
                         ["proxy-a", "proxy-b"])
        for name in ("a", "b", "both"):
            self.assert_point(report.point(name), name)
        self.assert_clean()

    def test_plan_tells_reach(self):
        plan = self.run_tool("plan", "backup", "a").document
        self.assertEqual([proxy["proxy"] for proxy in plan["proxies"]], ["proxy-a", "proxy-b"])
        self.assertEqual([proxy["coordinator"] for proxy in plan["proxies"]], [True, False])
        reach = [{sr["name"] for sr in proxy["srs"]} for proxy in plan["proxies"]]
        self.assertEqual(reach, [{SHARED_SR, "Room A", LOCAL_A}, {SHARED_SR, "Room B"}])

    def test_inventory_tells_proxies(self):
        proxies = self.run_tool("pool", "show").document["proxies"]
        self.assertEqual([proxy["proxy"] for proxy in proxies], ["proxy-a", "proxy-b"])
        self.assertEqual([proxy["host"]["name"] for proxy in proxies], ["host-a", "host-b"])
        self.assertEqual({sr["name"] for sr in proxies[1]["srs"]}, {SHARED_SR, "Room B"})

    def test_least_loaded_first(self):
        report = self.backup("spread")
        workers = [entry["proxy"] for entry in report.vm("spread")["disks"]]
        self.assertEqual(sorted(workers), ["proxy-a"] * 2 + ["proxy-b"] * 2)
        self.assert_point(report.point("spread"), "spread")

    def test_unreached_vm_is_refused_with_the_hosts_that_would_help(self):
        plan = self.run_tool("plan", "backup", "lonely", "a")
        self.assertEqual(plan.vm("lonely")["action"], "refuse")
        self.assertEqual([host["name"] for host in plan.vm("lonely")["helping_hosts"]], ["host-c"])
        self.assertIn("NO_PROXY_REACHES_SR", plan.reasons("lonely"))
        self.assertIn("Local storage C", plan.detail("lonely", "NO_PROXY_REACHES_SR"))
        self.assertIn("host-c", plan.detail("lonely", "NO_PROXY_REACHES_SR"))
        self.assertEqual(plan.vm("a")["action"], "backup")

    def test_others_are_done(self):
        report = self.backup("lonely", "a", code=PARTIAL)
        self.assert_point(report.point("a"), "a")
        self.assertEqual([point["vm"]["name"] for point in self.site.points()], ["a"])
        self.assert_clean()

    def test_only_unreached_vms(self):
        result = self.run_tool("backup", "lonely", code=REFUSED)
        self.assertIn("NO_PROXY_REACHES_SR", result.err)
        self.assertEqual(self.site.points(), [])

    def test_one_unreached_disk_refuses_the_vm(self):
        plan = self.run_tool("plan", "backup", "mixed")
        self.assertEqual(plan.vm("mixed")["action"], "refuse")
        self.assertEqual(plan.detail("mixed", "NO_PROXY_REACHES_SR").count("Local storage C"), 1)

    def test_unreached_disk_may_be_excluded(self):
        report = self.backup("mixed", "--exclude-disk", "mixed:1")
        self.assertEqual(report.vm("mixed")["disks"][1]["action"], "skip")

    def test_no_proxy_at_all(self):
        site = self.deploy("bare", proxies=())
        plan = self.run_tool("plan", "backup", "a", site=site)
        self.assertEqual(plan.vm("a")["action"], "refuse")
        self.assertIn("NO_PROXY", plan.reasons("a"))
        self.assertEqual(sorted(host["name"] for host in plan.vm("a")["helping_hosts"]),
                         ["host-a", "host-c"])

    def test_proxy_that_does_not_run(self):
        self.pool.sim("vm/power", vm="proxy-b", operation="shutdown")
        self.addCleanup(self.pool.sim, "vm/power", vm="proxy-b", operation="start", host="host-b")
        report = self.backup("b", "a", code=PARTIAL)
        self.assertIn("point", report.vm("a"))
        plan = self.run_tool("plan", "backup", "b")
        self.assertEqual(plan.vm("b")["action"], "refuse")
        proxy = plan.document["proxies"][1]
        self.assertEqual([reason["code"] for reason in proxy["reasons"]], ["PROXY_NOT_RUNNING"])

    def test_proxy_that_moved(self):
        self.pool.sim("vm/power", vm="proxy-b", operation="move", host="host-c")
        self.addCleanup(self.pool.sim, "vm/power", vm="proxy-b", operation="move", host="host-b")
        report = self.backup("lonely", "both")
        self.assertEqual(report.disk("lonely")["proxy"], "proxy-b")
        self.assert_point(report.point("lonely"), "lonely")

    def test_unplugged_storage(self):
        self.pool.sim("sr/plug", sr="Room B", host="host-b", attached=False)
        self.addCleanup(self.pool.sim, "sr/plug", sr="Room B", host="host-b", attached=True)
        plan = self.run_tool("plan", "backup", "b")
        self.assertEqual([host["name"] for host in plan.vm("b")["helping_hosts"]], ["host-c"])

    def test_host_of_a_proxy_is_dead(self):
        self.pool.sim("host/live", host="host-b", live=False)
        self.addCleanup(self.pool.sim, "host/live", host="host-b", live=True)
        plan = self.run_tool("plan", "backup", "b", "a")
        self.assertEqual(plan.vm("b")["action"], "refuse")
        self.assertEqual(plan.vm("a")["action"], "backup")
        self.assertEqual([reason["code"] for reason in plan.document["proxies"][1]["reasons"]],
                         ["PROXY_HOST_NOT_LIVE"])

    def test_restore_goes_where_a_proxy_reaches(self):
        point = self.backup("a").point("a")
        plan = self.run_tool("plan", "restore", point, "--sr", "Local storage C")
        self.assertEqual(plan.vm("a")["action"], "refuse")
        plan = self.run_tool("plan", "restore", point, "--sr", "Room B")
        self.assertEqual(plan.disk("a")["proxy"], "proxy-b")

    def test_wrong_proxies(self):
        self.site.config["pools"][0]["proxies"] = [
            {"name": "p", "vm_uuid": "01234567-89ab-cdef-0123-456789abcdef"}]
        self.site.write_config()
        result = self.site.run("plan", "backup", "a")
        self.assertNotEqual(result.code, OK)
        self.assertIn("01234567-89ab-cdef-0123-456789abcdef", result.err)

    def test_same_proxy_twice(self):
        uuid = self.pool.uuid("VM", "proxy-a")
        self.site.config["pools"][0]["proxies"] = [{"name": "p", "vm_uuid": uuid},
                                                   {"name": "q", "vm_uuid": uuid}]
        self.site.write_config()
        result = self.site.run("plan", "backup", "a")
        self.assertNotEqual(result.code, OK)
        self.assertIn("EXISTS", result.err)


class LocalStorage(PoolCase):
    """Two hosts with a proxy on one only."""

    scene = scene(vm("here", disk(seed=1, sr=LOCAL_A)),
                  vm("there", disk(seed=2, sr=LOCAL_B), host="host-b"))

    def deploy(self, name="site", init=None, **options):
        return super().deploy(name, init, proxies=("proxy-a",))

    def test_partial(self):
        report = self.backup("here", "there", code=PARTIAL)
        self.assert_point(report.point("here"), "here")
        self.assertEqual(report.vm("there")["state"], "refused")
        self.assertIn("host-b", report.detail("there", "NO_PROXY_REACHES_SR"))
        self.assert_clean()


if __name__ == "__main__":
    unittest.main()
