# SPDX-License-Identifier: LGPL-2.1-or-later
"""Chromium without a window: what a page measures there, and a picture of it."""

import json
import os
import re
import shutil
import subprocess
import tempfile

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 120

# Written into the page's body element: its height, and texts of drawings that lie over one another.
MEASURE = """<script>
var texts = Array.from(document.querySelectorAll('svg.pool text')).map(function (node) {
    return [node.getBoundingClientRect(), node.textContent];
});
var over = [];
texts.forEach(function (a, i) {
    texts.slice(i + 1).forEach(function (b) {
        if (a[0].left + 1 < b[0].right && b[0].left + 1 < a[0].right &&
            a[0].top + 3 < b[0].bottom && b[0].top + 3 < a[0].bottom)
            over.push(a[1] + ' / ' + b[1]);
    });
});
document.body.setAttribute('data-measured', JSON.stringify(
    {height: document.documentElement.scrollHeight, texts: texts.length, overlaps: over}));
</script></body>"""


def run(page, width, height, *options):
    """Output of Chromium for a page; the page gets a profile of its own."""
    folder = tempfile.mkdtemp(prefix="xvsa-browser-")
    try:
        path = os.path.join(folder, "page.html")
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
        # The sandbox needs rights that root in a container lacks; the page is our own.
        return subprocess.run(
            [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--force-device-scale-factor=1", "--user-data-dir=" + os.path.join(folder, "profile"),
             "--window-size=%d,%d" % (width, height), *options, "file://" + path],
            check=True, timeout=SECONDS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL).stdout
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(page, width=1400):
    """Height of the page, number of texts in drawings, and those that overlap, as laid out."""
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    found = run(open_page.replace("</body>", MEASURE), width, 1000, "--dump-dom").decode()
    value = re.search(r'data-measured="([^"]*)"', found)
    if not value:
        raise AssertionError("the page was not laid out: " + found[-500:])
    return json.loads(value.group(1).replace("&quot;", '"').replace("&amp;", "&"))


def picture(page, path, width):
    """Stores a picture of the whole page as PNG."""
    run(page, width, measure(page, width)["height"], "--screenshot=" + os.path.abspath(path))
