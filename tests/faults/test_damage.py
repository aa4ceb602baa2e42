# SPDX-License-Identifier: LGPL-2.1-or-later
"""One flipped byte in each kind of stored object: found by verify, refused by restore."""

import os
import random
import shutil
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from harness import DAMAGED, OK, PoolCase  # noqa: E402
from scenes import CHUNK, MIB, disk, scene, vm  # noqa: E402

PLACES = 2  # bytes flipped in each object, one after another


class Damage(PoolCase):
    """A repository of two VMs and three points, damaged in one place at a time."""

    scene = scene(vm("web", disk(seed=1, data=4 * MIB), disk(seed=2)), vm("db", disk(seed=3)))

    def setUp(self):
        super().setUp()
        self.old = self.backup("web").point("web")
        self.backup("db")
        for vdi in self.pool.disks("web"):
            self.pool.write(vdi, MIB, 3 * CHUNK)
        self.new = self.backup("web").point("web")
        self.assert_verified()

    def kinds(self):
        """Stored objects by kind: what their names begin with."""
        kinds = {}
        for name in self.site.objects():
            kinds.setdefault(name.split("/")[0], []).append(name)
        return kinds

    def flip(self, name, offset):
        """Flips one bit of a byte; returns a function that flips it back."""
        path = os.path.join(self.site.repo, name)

        def turn():
            mode = os.stat(path).st_mode
            os.chmod(path, 0o600)
            with open(path, "r+b") as file:
                file.seek(offset)
                byte = file.read(1)[0]
                file.seek(offset)
                file.write(bytes([byte ^ 0x10]))
            os.chmod(path, mode)
        turn()
        return turn

    def places(self, name, seed):
        """Offsets of an object to be flipped."""
        size = os.path.getsize(os.path.join(self.site.repo, name))
        rng = random.Random("%s/%s" % (seed, name.split("/")[0]))
        return sorted(rng.sample(range(size), PLACES))

    def is_told(self, result, name):
        """Whether a message names the damaged object, or the kind of which none is left."""
        text = result.err + result.out
        nothing_left = (name.split("/")[0] + "/*", "there is no repository")
        return name in text or (not os.path.exists(os.path.join(self.site.repo, name))
                                and any(words in text for words in nothing_left))

    def assert_found(self, name, offset):
        """Verify finds the damage and names the object."""
        what = "%s byte %d" % (name, offset)
        result = self.site.run("repo", "verify")
        self.assertNotEqual(result.code, OK, "%s: not found by verify\n%s" % (what, result))
        self.assertGreater(result.code, 0, "%s: %s" % (what, result))
        self.assertTrue(self.is_told(result, name), "%s: not named\n%s" % (what, result))

    def assert_restores_refused_or_right(self, name, offset):
        """No restore of damaged data succeeds; what succeeds is right."""
        for point, vm_name in ((self.new, "web"), ("latest:db", "db")):
            label = "%s byte %d, %s" % (name, offset, vm_name)
            result = self.site.run("restore", point, "--name", "checked")
            if result.code == OK:
                uuid = result.vm(vm_name)["new_uuid"]
                for original, copy in zip(self.pool.disks(vm_name), self.pool.disks(uuid)):
                    self.assert_same(self.pool.content(original), self.pool.content(copy), label)
                self.forget(uuid)
                continue
            self.assertGreater(result.code, 0, "%s: %s" % (label, result))
            self.assertTrue(self.is_told(result, name),
                            "%s: object not named\n%s" % (label, result))
            self.assertEqual(self.pool.vms("checked"), [], label)

    def test_every_kind_of_object(self):
        kinds = self.kinds()
        self.assertGreaterEqual(len(kinds), 4, kinds)
        for names in kinds.values():
            for name in (names[0], names[-1])[:len(names)]:
                for offset in self.places(name, 1):
                    with self.subTest(object=name, offset=offset):
                        back = self.flip(name, offset)
                        try:
                            self.assert_found(name, offset)
                            self.assert_restores_refused_or_right(name, offset)
                        finally:
                            back()
        self.assert_verified()
        self.assert_clean()

    def data_object(self):
        """The largest stored object: disk data."""
        return max(self.site.objects(), key=lambda name: os.path.getsize(
            os.path.join(self.site.repo, name)))

    def test_restore_names_object_point_and_disk(self):
        name = self.data_object()
        size = os.path.getsize(os.path.join(self.site.repo, name))
        back = self.flip(name, size // 2)
        self.addCleanup(back)
        result = self.site.run("restore", self.old, "--name", "checked")
        self.assertEqual(result.code, DAMAGED, str(result))
        text = result.err + result.out
        self.assertIn(name, text)
        self.assertIn(self.old, text)
        self.assertTrue(any(vdi in text for vdi in self.pool.disks("web")), text)
        self.assert_clean()

    def test_verify_names_point_and_disk(self):
        name = self.data_object()
        size = os.path.getsize(os.path.join(self.site.repo, name))
        self.addCleanup(self.flip(name, size // 2))
        result = self.run_tool("repo", "verify", code=DAMAGED)
        faults = result.document["faults"]
        self.assertTrue([fault for fault in faults if fault["object"] == name and fault["point"]
                         in (self.old, self.new) and fault["disk"]], faults)

    def test_disk_read_is_refused(self):
        name = self.data_object()
        size = os.path.getsize(os.path.join(self.site.repo, name))
        self.addCleanup(self.flip(name, size // 2))
        path = os.path.join(self.folder, "out")
        result = self.site.run("disk", "read", self.old, "0", "--output", path)
        self.assertEqual(result.code, DAMAGED, str(result))

    def test_other_points_are_not_harmed(self):
        """Damage of one VM's data leaves verify of another VM's point clean."""
        name = self.data_object()
        size = os.path.getsize(os.path.join(self.site.repo, name))
        self.addCleanup(self.flip(name, size // 2))
        verdicts = {vm: self.site.run("repo", "verify", "latest:" + vm).code
                    for vm in ("web", "db")}
        self.assertIn(OK, verdicts.values(), verdicts)
        self.assertIn(DAMAGED, verdicts.values(), verdicts)

    def test_missing_and_cut_objects(self):
        for kind, names in self.kinds().items():
            for how in ("missing", "cut", "empty"):
                path = os.path.join(self.site.repo, names[0])
                with self.subTest(kind=kind, how=how):
                    shutil.copy2(path, self.folder + "/kept")
                    os.chmod(path, 0o600)
                    if how == "missing":
                        os.unlink(path)
                    else:
                        os.truncate(path, os.path.getsize(path) // 2 if how == "cut" else 0)
                    try:
                        result = self.site.run("repo", "verify")
                        self.assertNotEqual(result.code, OK, "%s %s" % (names[0], how))
                        self.assertGreater(result.code, 0, str(result))
                        self.assert_restores_refused_or_right(names[0], -1)
                    finally:
                        shutil.copy2(self.folder + "/kept", path)
        self.assert_verified()


if __name__ == "__main__":
    unittest.main()
