# SPDX-License-Identifier: LGPL-2.1-or-later
"""Base of the tests of deployments: pools by scenario, and the documents about them.

Needs XVSA_BUILD, the folder of a build.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))

from deployment import Deployment  # noqa: E402
from estate import Estate, proxies_of  # noqa: E402
from simpool import SimPool  # noqa: E402


class DeploymentCase(unittest.TestCase):
    """Tests with a folder of their own."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="xvsa-deployment-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def pool(self, scene):
        """A running pool and a configuration with all its proxies."""
        folder = tempfile.mkdtemp(dir=self.folder)
        pool = SimPool(os.path.join(folder, "pool"), scene, tls=False)
        try:
            yield pool, Deployment(os.path.join(folder, "site"), pool, proxies_of(scene))
        finally:
            pool.stop()

    @contextlib.contextmanager
    def estate(self, number):
        """The running pools of a deployment and their configuration."""
        folder = tempfile.mkdtemp(dir=self.folder)
        estate = Estate(folder, number, tls=False)
        try:
            yield estate, estate.deploy(os.path.join(folder, "site"))
        finally:
            estate.stop()

    def plan(self, site, *words):
        """The document "deployment"."""
        result = site.run("plan", "--deployment", *words)
        self.assertEqual(result.code, 0, str(result))
        return result.document

    def draw(self, site, *words):
        """The document and the page about it."""
        path = os.path.join(site.folder, "page.html")
        document = self.plan(site, "--html", path, "--force", *words)
        with open(path, encoding="utf-8") as file:
            return document, file.read()
