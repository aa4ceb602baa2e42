# SPDX-License-Identifier: LGPL-2.1-or-later
"""A page of xvsa_deployment_draw taken apart: its tree, and the boxes that its texts take."""

import re
import unicodedata
import xml.etree.ElementTree

SVG = "{http://www.w3.org/2000/svg}"
HTML = "{http://www.w3.org/1999/xhtml}"
ADVANCE = 0.6  # of a character of the fixed-width font, in units of its size
ASCENT, DESCENT = 0.78, 0.22


def tree(page):
    """The page as XML; fails when it is not well-formed."""
    return xml.etree.ElementTree.fromstring(page)


def pools(root):
    """The drawings of pools."""
    return [node for node in root.iter(SVG + "svg") if node.get("class") == "pool"]


def columns(text):
    """Columns of a fixed-width font."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
               for c in text)


def text_box(node):
    """(left, top, right, bottom) of a text, turned or not."""
    size = float(node.get("font-size"))
    width = float(node.get("textLength") or columns(node.text or "") * size * ADVANCE)
    x, y = float(node.get("x")), float(node.get("y"))
    shift = {"middle": width / 2, "end": width}.get(node.get("text-anchor"), 0)
    turned = re.match(r"rotate\(-90 ", node.get("transform", ""))
    if turned:
        return (x - ASCENT * size, y + shift - width, x + DESCENT * size, y + shift)
    return (x - shift, y - ASCENT * size, x - shift + width, y + DESCENT * size)


def rect_box(node):
    """(left, top, right, bottom) of a rectangle."""
    x, y = float(node.get("x")), float(node.get("y"))
    return (x, y, x + float(node.get("width")), y + float(node.get("height")))


def overlap(a, b):
    """Whether two boxes share more than an edge."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def is_inside(a, b):
    """Whether box a lies in box b."""
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def overlaps(drawing):
    """Pairs of texts that overlap, and texts that stick out of the drawing or of their chip."""
    texts = [(text_box(node), node.text) for node in drawing.iter(SVG + "text")]
    frame = (0, 0, float(drawing.get("width")), float(drawing.get("height")))
    faults = ["%r is outside" % text for box, text in texts if not is_inside(box, frame)]
    texts.sort(key=lambda item: item[0][1])
    for i, (box, text) in enumerate(texts):
        for other, name in texts[i + 1:]:
            if other[1] >= box[3]:
                break
            if overlap(box, other):
                faults.append("%r and %r" % (text, name))
    chips = [node for node in drawing.iter(SVG + "g") if node.get("class", "").startswith("chip")]
    for chip in chips:
        box = rect_box(chip.find(SVG + "rect"))
        label = chip.find(SVG + "text")
        if not is_inside(text_box(label), box):
            faults.append("%r sticks out of its chip" % label.text)
    boxes = [rect_box(chip.find(SVG + "rect")) for chip in chips]
    boxes += [rect_box(node.find(SVG + "rect")) for node in drawing.iter(SVG + "g")
              if node.get("class", "").startswith("host")]
    boxes.sort(key=lambda box: box[1])
    for i, box in enumerate(boxes):
        for other in boxes[i + 1:]:
            if other[1] >= box[3]:
                break
            if overlap(box, other):
                faults.append("boxes at %s and %s" % (box, other))
    return faults


def chips(drawing):
    """Name and state of every chip."""
    found = []
    for node in drawing.iter(SVG + "g"):
        words = node.get("class", "").split()
        if words[:1] == ["chip"]:
            found.append((node.find(SVG + "text").text, words[1]))
    return found


def words(node):
    """All text below a node."""
    return " ".join("".join(node.itertext()).split())
