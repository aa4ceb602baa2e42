# SPDX-License-Identifier: LGPL-2.1-or-later
"""Certificates of an etcd cluster and of its clients, made with openssl."""

import os
import subprocess


class Authority:
    """An authority in a folder, which signs for servers and clients."""

    def __init__(self, folder, name="authority"):
        self.folder, self.name = folder, name
        os.makedirs(folder, exist_ok=True)
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-keyout", name + ".key", "-out", name + ".pem", "-days", "2",
                      "-subj", "/CN=" + name)

    @property
    def ca(self):
        """File of its certificate."""
        return os.path.join(self.folder, self.name + ".pem")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def sign(self, name, usage, addresses=("127.0.0.1",)):
        """Files of a new certificate and of its key."""
        names = ",".join("IP:" + address for address in addresses)
        with open(os.path.join(self.folder, name + ".ext"), "w", encoding="ascii") as file:
            file.write("subjectAltName=%s\nextendedKeyUsage=%s\n" % (names, usage))
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
        self._openssl("x509", "-req", "-in", name + ".csr", "-CA", self.name + ".pem", "-CAkey",
                      self.name + ".key", "-CAcreateserial", "-out", name + ".pem", "-days", "2",
                      "-extfile", name + ".ext")
        return tuple(os.path.join(self.folder, name + end) for end in (".pem", ".key"))
