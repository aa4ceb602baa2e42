# SPDX-License-Identifier: LGPL-2.1-or-later
"""The document "deployment": against golden ones, and against what trying everything out tells."""

import json
import os
import unittest

import shapes
from case import HERE, DeploymentCase
from model import Model

SEEDS = range(1, 15)
GOLDEN = os.path.join(HERE, "golden")


def names(items):
    """Names of Named objects, or texts as they are, as a set."""
    return {item["name"] if isinstance(item, dict) else item for item in items}


class Golden(DeploymentCase):
    """The deployments of the scenario files. XVSA_GOLDEN=write makes the files anew."""

    def compare(self, number):
        with self.estate(number) as (_, site):
            found = self.plan(site)
        self.assertGreater(found.pop("made_ms"), 0)
        path = os.path.join(GOLDEN, "deployment-%d.json" % number)
        if os.environ.get("XVSA_GOLDEN") == "write":
            with open(path, "w", encoding="utf-8") as file:
                json.dump(found, file, indent=1)
                file.write("\n")
        with open(path, encoding="utf-8") as file:
            wanted = json.load(file)
        self.maxDiff = 4000
        self.assertEqual(wanted, found)

    def test_one_pool(self):
        self.compare(1)

    def test_two_pools(self):
        self.compare(2)


class Findings(DeploymentCase):
    """Small random pools, each answer tried out."""

    def check_vms(self, model, pool):
        unreached = {vm for vm in model.vms if not model.is_reached(vm, model.hosts_of())}
        self.assertEqual(names(pool["unreached"]), unreached)
        self.assertEqual({vm["name"] for vm in pool["vms"]}, set(model.vms))
        for vm in pool["vms"]:
            name = vm["name"]
            proxies = {proxy for proxy, _ in model.proxies if name in model.lost_with_proxy(proxy)}
            hosts = {host for host in model.hosts if name in model.lost_with_host(host)}
            self.assertEqual(names(vm["lost_with"]["proxies"]), proxies, name)
            self.assertEqual(names(vm["lost_with"]["hosts"]), hosts, name)
            self.assertEqual(vm["state"], "unreached" if name in unreached else "one-proxy"
                             if proxies else "one-host" if hosts else "covered", name)
            self.assertEqual(vm["curable"], model.curable(name, "reach"), name)
            self.assertEqual(vm["whole"], sum(model.is_reached(name, [host])
                                              for _, host in model.proxies), name)
            for disk in vm["disks"]:
                reached = [proxy for route in disk["routes"] for proxy in route["proxies"]]
                self.assertEqual(sorted(reached), sorted(
                    proxy for proxy, host in model.proxies
                    if host in model.attached[disk["sr"]["name"]]), name)

    def check_losses(self, model, losses):
        self.assertEqual({loss["proxy"]: names(loss["vms"]) for loss in losses["proxies"]},
                         {proxy: model.lost_with_proxy(proxy) for proxy, _ in model.proxies
                          if model.lost_with_proxy(proxy)})
        self.assertEqual({loss["name"]: names(loss["vms"]) for loss in losses["hosts"]},
                         {host: model.lost_with_host(host) for host in model.hosts
                          if model.lost_with_host(host)})

    def check_advice(self, model, advice):
        goal = advice["goal"]
        added = [place["name"] for place in advice["add"] for _ in range(place["proxies"])]
        self.assertEqual(len(added), advice["proxies"])
        self.assertTrue(model.is_cure(goal, added), "%s: %s do not cure" % (goal, added))
        self.assertTrue(advice["exact"], "so small a pool can be answered exactly")
        self.assertEqual(advice["at_least"], advice["proxies"])
        fewer = model.cured_by_fewer(goal, advice["proxies"])
        self.assertIsNone(fewer, "%s: %s suffice" % (goal, fewer))
        now, then = model.hosts_of(), model.hosts_of(added)
        self.assertEqual(names(advice["incurable"]),
                         {vm for vm in model.vms if not model.curable(vm, goal)}, goal)
        self.assertEqual(names(advice["cured"]),
                         {vm for vm in model.vms if not model.meets(vm, goal, now) and
                          model.meets(vm, goal, then)}, goal)

    def test_random_pools(self):
        for seed in SEEDS:
            scene = shapes.small(seed)
            with self.subTest(seed), self.pool(scene) as (_, site):
                document = self.plan(site)
                model = Model(scene)
                self.check_vms(model, document["pools"][0])
                self.check_losses(model, document["pools"][0]["losses"])
                self.assertEqual([advice["goal"] for advice in document["pools"][0]["advice"]],
                                 ["reach", "proxy-loss", "host-loss"])
                for advice in document["pools"][0]["advice"]:
                    self.check_advice(model, advice)


class Followed(DeploymentCase):
    """What the document says comes true in the pool."""

    def test_a_proxy_less(self):
        with self.estate(2) as (_, site):
            whole = self.plan(site)
            for index, entry in enumerate(site.config["pools"]):
                losses = {loss["proxy"]: names(loss["vms"])
                          for loss in whole["pools"][index]["losses"]["proxies"]}
                proxies = entry["proxies"]
                for proxy in proxies:
                    entry["proxies"] = [other for other in proxies if other is not proxy]
                    site.write_config()
                    pool = self.plan(site, "--exclude-tag", "proxy")["pools"][index]
                    self.assertEqual(names(pool["unreached"]), losses.get(proxy["name"], set()),
                                     proxy["name"])
                entry["proxies"] = proxies
                site.write_config()

    def test_advised_proxies_are_added(self):
        for seed in SEEDS:
            scene = shapes.small(seed)
            with self.subTest(seed), self.pool(scene) as (_, site):
                advice = self.plan(site)["pools"][0]["advice"][-1]
                hosts = [place["name"] for place in advice["add"] for _ in range(place["proxies"])]
                scene["vms"] += [shapes.proxy("further-%d" % i, host)
                                 for i, host in enumerate(hosts)]
                with self.pool(scene) as (_, richer):
                    pool = self.plan(richer)["pools"][0]
                self.assertEqual([goal["proxies"] for goal in pool["advice"]], [0, 0, 0])
                self.assertEqual(names(pool["advice"][-1]["incurable"]),
                                 names(advice["incurable"]))
                self.assertEqual(pool["losses"]["proxies"], [])
                self.assertLessEqual(names(advice["cured"]),
                                     {vm["name"] for vm in pool["vms"] if vm["state"] == "covered"})

    def test_a_host_that_takes_no_vms_comes_last(self):
        scene = shapes.scene("choice", ["host-1", "host-2"], {"SR-1": ["host-1", "host-2"]},
                             [shapes.guest("vm", "host-1", ["SR-1"])])
        with self.pool(scene) as (pool, site):
            pool.set("host", "host-1", enabled=False)
            advice = self.plan(site)["pools"][0]["advice"][0]
        self.assertEqual([place["name"] for place in advice["add"]], ["host-2"])


class Live(DeploymentCase):
    """Reach comes from the records of the moment, not from the configuration."""

    def states(self, site, *words):
        return {vm["name"]: vm["state"] for pool in self.plan(site, *words)["pools"]
                for vm in pool["vms"]}

    def test_changes_are_seen(self):
        with self.estate(2) as (estate, site):
            self.assertEqual({name for name, state in self.states(site).items()
                              if state != "covered"}, {"b-local", "b-split"})
            first, second = estate.pools["deployment-2a"], estate.pools["deployment-2b"]
            first.sim("sr/plug", sr="SR-A1", host="host-2", attached=False)
            self.assertEqual(self.states(site)["a-web"], "one-proxy")
            first.sim("vm/power", vm="proxy-1", operation="shutdown")
            self.assertEqual(self.states(site)["a-web"], "unreached")
            self.assertEqual(self.states(site)["a-split"], "unreached")
            self.assertEqual(self.states(site)["a-db"], "covered")
            second.sim("host/live", host="host-6", live=False)
            self.assertEqual(self.states(site)["b-web"], "one-host")
            proxies = self.plan(site)["pools"][1]["proxies"]
            self.assertEqual([reason["code"] for reason in proxies[2]["reasons"]],
                             ["PROXY_HOST_NOT_LIVE"])

    def test_network_transport(self):
        scene = shapes.scene("apart", ["host-1", "host-2"], {"SR-1": ["host-1"]},
                             [shapes.proxy("proxy-1", "host-2"),
                              shapes.guest("vm-1", "host-1", ["SR-1"])])
        with self.pool(scene) as (_, site):
            self.assertEqual(self.states(site), {"vm-1": "unreached"})
            document = self.plan(site, "--any-host")
            disk = document["pools"][0]["vms"][0]["disks"][0]
            self.assertEqual([route["tier"] for route in disk["routes"]], ["network"])
            self.assertNotIn("hotadd", disk["routes"][0]["transports"])

    def test_selection(self):
        with self.estate(2) as (_, site):
            self.assertEqual(len(self.states(site, "--all")), 22)
            self.assertEqual(set(self.states(site, "--pattern", "*-split")),
                             {"a-split", "b-split"})
            self.assertNotIn("a-web", self.states(site, "--exclude", "a-web"))
            self.assertEqual(self.states(site, "--exclude-disk", "b-split:1")["b-split"], "covered")

    def test_transports(self):
        with self.estate(1) as (_, site):
            for words, wanted in (([], ["hotadd", "nbd", "http"]),
                                  (["--transport", "http"], ["http"])):
                pool = self.plan(site, *words)["pools"][0]
                self.assertEqual(pool["transports"], wanted)
                self.assertEqual(pool["vms"][0]["disks"][0]["routes"][0]["transports"], wanted)


if __name__ == "__main__":
    unittest.main()
