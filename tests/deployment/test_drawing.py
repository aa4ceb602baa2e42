# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page that draws a deployment: complete, readable, and harmless whatever names hold."""

import html.parser
import re
import unittest
import xml.etree.ElementTree

import shapes
import svg
from case import DeploymentCase

ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "span", "ul", "li",
           "div", "section", "table", "thead", "tbody", "tr", "th", "td", "details", "summary",
           "bdi", "svg", "g", "rect", "path", "circle", "text"}
ATTRIBUTES = {"xmlns", "lang", "charset", "http-equiv", "content", "name", "class", "scope", "role",
              "width", "height", "viewbox", "x", "y", "rx", "r", "cx", "cy", "d", "transform",
              "font-size", "text-anchor", "textlength", "lengthadjust"}


class Tags(html.parser.HTMLParser):
    """What a browser's parser would find: elements, attributes, text of scripts."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.values = set(), set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value or "" for _, value in attrs]


class PageCase(DeploymentCase):
    """Checks that every page passes."""

    def check_page(self, page):
        """Well-formed, nothing active, nothing loaded, no text over another; returns its tree."""
        root = svg.tree(page)
        seen = Tags(page)
        self.assertLessEqual(seen.tags, ALLOWED)
        self.assertLessEqual(seen.attributes, ATTRIBUTES)
        for value in seen.values:
            self.assertNotRegex(value, r"(?i)url\(|javascript:|^\s*data:")
        self.assertNotRegex(page, r"(?i)@import|url\(")
        self.assertEqual(set(re.findall(r"https?://[^\"\s<]+", re.sub(r">[^<]*<", "><", page))),
                         {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"})
        self.assertEqual(set(re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]",
                                        page)), set())
        for drawing in svg.pools(root):
            self.assertEqual(svg.overlaps(drawing), [])
        return root


class TwoPools(PageCase):
    """Deployment 2."""

    def test_what_is_drawn(self):
        with self.estate(2) as (estate, site):
            document, page = self.draw(site)
            self.assertEqual(estate.pools["deployment-2a"].called("VM.snapshot"), 0)
        root = self.check_page(page)
        drawings = svg.pools(root)
        self.assertEqual(len(drawings), 2)
        for drawing, pool in zip(drawings, document["pools"]):
            chips = svg.chips(drawing)
            for vm in pool["vms"]:
                self.assertIn((vm["name"], vm["state"]), chips)
            for proxy in pool["proxies"]:
                self.assertIn((proxy["proxy"], "proxy"), chips)
            names = [node.text for node in drawing.iter(svg.SVG + "text")]
            for host in pool["hosts"]:
                self.assertIn(host["name"], names)
        bars = [node.get("class") for drawing in drawings for node in drawing.iter(svg.SVG + "g")
                if node.get("class", "").startswith("bar ")]
        self.assertEqual(bars, ["bar covered"] * 3)
        self.assertIn("Loss of proxy proxy-7 would leave unreached b-local, b-split",
                      svg.words(root).replace("unreachedb", "unreached b"))

    def test_one_page_for_one_document(self):
        with self.estate(1) as (_, site):
            _, first = self.draw(site)
            _, second = self.draw(site)
        dated = re.compile(r"as of [^<]*")
        self.assertEqual(dated.sub("", first), dated.sub("", second))
        self.check_page(first)


class Large(PageCase):
    """64 hosts, 40 SRs, 70 proxies."""

    def test_nothing_overlaps(self):
        scene = shapes.wide()
        with self.pool(scene) as (_, site):
            document, page = self.draw(site)
        pool = document["pools"][0]
        self.assertEqual([len(pool[kind]) for kind in ("hosts", "srs", "proxies")], [64, 40, 70])
        drawing = svg.pools(self.check_page(page))[0]
        hosts = [node for node in drawing.iter(svg.SVG + "g")
                 if node.get("class", "").split()[:1] == ["host"]]
        self.assertEqual(len(hosts), 65)
        self.assertEqual(sum(state == "proxy" for _, state in svg.chips(drawing)), 70)

    def test_overlaps_would_be_noticed(self):
        with self.estate(1) as (_, site):
            _, page = self.draw(site)
        drawing = svg.pools(svg.tree(page))[0]
        texts = list(drawing.iter(svg.SVG + "text"))
        texts[3].set("x", texts[4].get("x"))
        texts[3].set("y", texts[4].get("y"))
        self.assertNotEqual(svg.overlaps(drawing), [])


class Hostile(PageCase):
    """Names that mean harm are text."""

    def test_names(self):
        scene = shapes.hostile()
        with self.pool(scene) as (pool, site):
            for host, name in zip(scene["hosts"], shapes.HOSTILE):
                pool.set("host", host["name"], name_label=name)
            document, page = self.draw(site)
        root = self.check_page(page)
        shown = "".join(root.itertext())
        for name in ("<script>alert(1)</script>", "&lt;b&gt; & co.", "'; DROP TABLE vms; --"):
            self.assertIn(name, shown)
        self.assertEqual(document["pools"][0]["name"], shapes.HOSTILE[0])

    def test_seeded_harm_would_be_noticed(self):
        with self.estate(1) as (_, site):
            _, page = self.draw(site)
        for harm in ("<script>1</script>", "<img src='x'/>", "<svg onload='x'/>"):
            with self.assertRaises((AssertionError, xml.etree.ElementTree.ParseError)):
                self.check_page(page.replace("<h1>", harm + "<h1>"))


class Edges(PageCase):
    """Pools with little in them."""

    def test_no_proxies(self):
        scene = shapes.scene("bare", ["host-1", "host-2"], {"SR-1": ["host-1", "host-2"]},
                             [shapes.guest("vm", "host-1", ["SR-1"])])
        with self.pool(scene) as (_, site):
            document, page = self.draw(site)
        self.assertEqual(document["pools"][0]["advice"][0]["proxies"], 1)
        self.assertIn("No proxy reaches", svg.words(self.check_page(page)))

    def test_no_vms_and_no_storage(self):
        with self.pool(shapes.scene("empty", ["host-1"], {}, [])) as (_, site):
            _, page = self.draw(site)
        self.assertIn("Every VM is reached", svg.words(self.check_page(page)))

    def test_a_proxy_that_does_not_run(self):
        with self.estate(1) as (estate, site):
            estate.pools["deployment-1"].sim("vm/power", vm="proxy-2", operation="shutdown")
            _, page = self.draw(site)
        root = self.check_page(page)
        self.assertIn(("proxy-2", "unreached"), svg.chips(svg.pools(root)[0]))
        self.assertIn("proxy-2 reaches nothing", svg.words(root))


if __name__ == "__main__":
    unittest.main()
