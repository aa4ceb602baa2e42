# SPDX-License-Identifier: LGPL-2.1-or-later
"""xvsa plan --deployment: which pools, what is printed where, and wrong command lines."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))

from estate import Estate  # noqa: E402

TOOL = os.path.join(os.environ["XVSA_BUILD"], "tools", "xvsa")
OK, FAILED, USAGE, DENIED = 0, 1, 2, 7


class PlanDeployment(unittest.TestCase):
    """Deployment 2 and its configuration."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="xvsa-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.estate = Estate(cls.folder, 2)
        cls.addClassCleanup(cls.estate.stop)
        cls.site = cls.estate.deploy(os.path.join(cls.folder, "site"))
        cls.config = os.path.join(cls.site.folder, "config.json")

    def run_tool(self, *words, code=OK, config=True):
        """Output and messages of a command that must end with a code."""
        command = [TOOL, "plan", *words] + (["--config", self.config] if config else [])
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout, done.stderr

    def path(self, name):
        """A file that is not there."""
        path = os.path.join(self.folder, name)
        if os.path.exists(path):
            os.unlink(path)
        return path

    def test_for_people(self):
        out, _ = self.run_tool("--deployment")
        for text in ("Pool A", "Pool B", "Loss of proxy proxy-7 would leave unreached: "
                     "b-local, b-split", "Loss of host host-7",
                     "Advice (proxy-loss): add 1, the fewest possible: 1 on host-7",
                     "cannot be cured: b-local, b-split"):
            self.assertIn(text, out)
        self.assertRegex(out, r"(?m)^proxy-5a +proxy-5a +host-5 +yes +SR-B1$")
        self.assertRegex(out, r"(?m)^a-web +covered +host-1 +0 +SR-A1 +"
                              r"proxy-1 \(host, hotadd\); proxy-2 \(sr, hotadd\)$")

    def test_pools_are_chosen(self):
        def pools(*words):
            out, _ = self.run_tool("--deployment", "--json", *words)
            return [pool["name"] for pool in json.loads(out)["pools"]]
        self.assertEqual(pools(), ["Pool A", "Pool B"])
        self.assertEqual(pools("--pool", "deployment-2b"), ["Pool B"])
        self.assertEqual(pools("--pool", "deployment-2b", "--pool", "deployment-2a"),
                         ["Pool B", "Pool A"])

    def test_a_pool_by_url(self):
        pool = self.estate.pools["deployment-2b"]
        words = ["--deployment", "--json", "--pattern", "b-*", "--pool", pool.urls[0],
                 "--password-file", os.path.join(self.site.folder, "password"),
                 "--proxy", pool.uuid("VM", "proxy-7")]
        for fingerprint in pool.fingerprints:
            words += ["--fingerprint", fingerprint]
        out, _ = self.run_tool(*words, config=False)
        self.assertEqual(len(json.loads(out)["pools"][0]["unreached"]), 5)

    def test_page_to_a_file(self):
        path = self.path("page.html")
        out, _ = self.run_tool("--deployment", "--html", path)
        self.assertEqual(out, "")
        with open(path, encoding="utf-8") as file:
            self.assertTrue(file.read().rstrip().endswith("</html>"))
        _, err = self.run_tool("--deployment", "--html", path, code=USAGE)
        self.assertIn("--force", err)
        out, _ = self.run_tool("--deployment", "--html", path, "--force", "--json")
        self.assertEqual(len(json.loads(out)["pools"]), 2)

    def test_page_to_the_output(self):
        out, _ = self.run_tool("--deployment", "--html", "-", "--pool", "deployment-2a")
        self.assertTrue(out.startswith("<!DOCTYPE html>"))

    def test_page_that_cannot_be_written(self):
        _, err = self.run_tool("--deployment", "--html", "/nonexistent/page.html", code=FAILED)
        self.assertIn("/nonexistent/page.html", err)
        _, err = self.run_tool("--deployment", "--html", "/dev/full", "--force", code=FAILED)
        self.assertIn("/dev/full", err)

    def test_wrong_command_lines(self):
        for words, text in (([], "--deployment"),
                            (["--deployment", "--html", "-", "--json"], "standard output"),
                            (["--deployment", "web"], "web"),
                            (["--deployment", "--pool", "nobody"], "nobody"),
                            (["--deployment", "--proxy", "x"], "--proxy")):
            _, err = self.run_tool(*words, code=USAGE)
            self.assertIn(text, err)
        _, err = self.run_tool("--deployment", code=USAGE, config=False)
        self.assertIn("which pool", err)
        _, err = self.run_tool("--deployment", "--transport", "ftp", code=FAILED)
        self.assertIn("transports", err)

    def test_a_pool_that_refuses_the_password(self):
        self.site.secret("wrong", "not the password")
        pools = self.site.config["pools"]
        pools[1]["password_file"] = "wrong"
        self.site.write_config()
        try:
            out, err = self.run_tool("--deployment", code=DENIED)
        finally:
            pools[1]["password_file"] = "password"
            self.site.write_config()
        self.assertEqual(out, "")
        self.assertNotIn("not the password", err)


if __name__ == "__main__":
    unittest.main()
