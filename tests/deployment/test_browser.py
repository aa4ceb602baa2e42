# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page in a real browser, where one is installed: laid out without overlaps, and pictured."""

import os
import struct
import unittest

import browser
import shapes
from case import HERE, DeploymentCase

KEPT = os.path.join(HERE, "..", "..", "docs", "images", "deployment-2.png")


def png_size(path):
    """Width and height of a PNG file."""
    with open(path, "rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        raise AssertionError("%s is no PNG" % path)
    return struct.unpack(">II", head[16:24])


class KeptPicture(unittest.TestCase):
    """The picture in the documentation; tests/deployment/screenshot makes it anew."""

    def test_is_there_and_small(self):
        width, height = png_size(KEPT)
        self.assertGreater(width, 800)
        self.assertGreater(height, 600)
        self.assertLess(os.path.getsize(KEPT), 300_000)


@unittest.skipUnless(browser.PROGRAM, "chromium is not installed")
class InChromium(DeploymentCase):
    """What Chromium makes of pages."""

    def check(self, page, width):
        measured = browser.measure(page, width)
        self.assertEqual(measured["overlaps"], [])
        self.assertGreater(measured["texts"], 10)
        path = os.path.join(self.folder, "page.png")
        browser.picture(page, path, width)
        self.assertEqual(png_size(path), (width, measured["height"]))

    def test_deployment_2(self):
        with self.estate(2) as (_, site):
            _, page = self.draw(site)
        self.check(page, 1000)

    def test_sixty_four_hosts(self):
        with self.pool(shapes.wide(vms=200)) as (_, site):
            _, page = self.draw(site)
        self.check(page, 1800)

    def test_hostile_names(self):
        with self.pool(shapes.hostile()) as (_, site):
            _, page = self.draw(site)
        self.check(page, 1600)

    def test_overlaps_would_be_noticed(self):
        with self.estate(1) as (_, site):
            _, page = self.draw(site)
        broken = page.replace('font-size="12"', 'font-size="60"')
        self.assertNotEqual(browser.measure(broken)["overlaps"], [])


if __name__ == "__main__":
    unittest.main()
