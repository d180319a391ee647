"""Ceph's gateway as an S3 store for tests: a monitor, a storage daemon on a file, and the gateway,
all on loopback.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.certificates import Certificates, make_certificates
from tests.integration.processes import START_S, answers, end, free_ports, wait_for_server

FSID = "5d3b8a6e-6d0f-4c0e-9c1b-3c6e0a1b2c3d"
ACCESS_KEY, SECRET_KEY = "testaccesskey", "test-secret-key-0123456789"
ROLE = "test"
"""A role that the user may assume. It has all rights to all buckets."""

CEPH_CONF = """
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{mon}
public_addr = 127.0.0.1
ms_bind_ipv4 = true
ms_bind_ipv6 = false
ms_bind_msgr2 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
run_dir = {folder}
log_file = {folder}/$name.log
admin_socket = {folder}/$name.asok
mon_data = {folder}/mon
osd_data = {folder}/osd
osd_objectstore = bluestore
bluestore_block_size = 8589934592
osd_memory_target = 939524096
bluestore_cache_size = 67108864
keyring = {folder}/keyring
[mon.a]
mon_addr = 127.0.0.1:{mon}
[client.admin]
keyring = {folder}/keyring
[client.rgw]
keyring = {folder}/keyring
rgw_frontends = beast endpoint=127.0.0.1:{rgw} ssl_endpoint=127.0.0.1:{tls} \
    ssl_certificate={pem} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_s3_auth_use_sts = true
rgw_sts_key = 0123456789abcdef
[osd]
keyring = {folder}/osd/keyring
"""


@dataclass
class Ceph:
    """The daemons below one folder, and their ports."""

    folder: Path
    certificates: Certificates
    mon: int
    rgw: int
    tls: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def conf(self) -> Path:
        return self.folder / "ceph.conf"

    @property
    def keyring(self) -> Path:
        return self.folder / "keyring"

    def set_up(self) -> None:
        """Write the configuration, and the keys of the three who talk to the monitor."""
        values = {
            "fsid": FSID,
            "mon": self.mon,
            "rgw": self.rgw,
            "tls": self.tls,
            "pem": self.certificates.pem,
        }
        self.conf.write_text(CEPH_CONF.format(folder=self.folder, **values))
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        self._add_key("mon.", "--create-keyring", mon="allow *")
        self._add_key("client.admin", mon="allow *", osd="allow *", mgr="allow *")
        self._add_key("client.rgw", mon="allow rw", osd="allow rwx")

    def start_monitor(self) -> None:
        address, monmap = f"[v1:127.0.0.1:{self.mon}]", self.folder / "monmap"
        call("monmaptool", "--create", "--addv", "a", address, "--fsid", FSID, monmap)
        where = ("-i", "a", "-c", self.conf)
        call("ceph-mon", "--mkfs", *where, "--monmap", monmap, "--keyring", self.keyring)
        self._start("ceph-mon", "-i", "a")

    def start_storage(self) -> None:
        secret = call("ceph-authtool", "--gen-print-key").strip()
        words = ("ceph", "-c", self.conf, "--connect-timeout", "30", "osd", "new", FSID, "-i", "-")
        number = call(*words, text=f'{{"cephx_secret": "{secret}"}}').strip()
        keyring = self.folder / "osd" / "keyring"
        call(
            "ceph-authtool", "--create-keyring", keyring, "-n", f"osd.{number}", "--add-key", secret
        )
        call("ceph-osd", "-i", number, "-c", self.conf, "--mkfs", "--osd-uuid", FSID)
        self._start("ceph-osd", "-i", number)

    def start_gateway(self) -> None:
        gateway = self._start("radosgw", "-n", "client.rgw")
        wait_for_server(
            "radosgw", lambda: answers(f"http://127.0.0.1:{self.rgw}/"), gateway, self._log
        )

    def kill_gateway(self) -> None:
        end(self.processes.pop(), signal.SIGKILL)

    def add_user(self) -> None:
        keys = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY, "--key-type=s3")
        user = ("user", "create", "--uid", "test", "--display-name", "test", *keys)
        self._administer(*user)

    def add_role(self) -> None:
        principal = {"AWS": ["arn:aws:iam:::user/test"]}
        trust = _policy(Action="sts:AssumeRole", Principal=principal)
        rights = _policy(Action="s3:*", Resource="arn:aws:s3:::*")
        role = ("--role-name", ROLE)
        self._administer("role", "create", *role, "--assume-role-policy-doc", trust)
        self._administer(
            "role-policy", "put", *role, "--policy-name", "all", "--policy-doc", rights
        )

    @property
    def _log(self) -> Path:
        return self.folder / "output.log"

    def _administer(self, *words: str) -> None:
        call("radosgw-admin", "-c", self.conf, "-n", "client.rgw", *words)

    def _add_key(self, name: str, *options: str, **caps: str) -> None:
        flags = [word for who, what in caps.items() for word in ("--cap", who, what)]
        call("ceph-authtool", *options, self.keyring, "--gen-key", "-n", name, *flags)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        words = [*command, "-c", str(self.conf), "-f"]
        with open(self._log, "ab") as file:
            process = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)
        self.processes.append(process)
        return process


def _policy(**rule: object) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **rule}]})


def call(*command: object, text: str | None = None) -> str:
    """What a program printed. Raises RuntimeError with its error output."""
    words = [str(part) for part in command]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=START_S)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed: {done.stderr[-1000:]}")
    return done.stdout


@contextmanager
def running_ceph(folder: Path) -> Iterator[Ceph]:
    """The whole store, its gateway listening with and without TLS."""
    mon, rgw, tls = free_ports(3)
    ceph = Ceph(folder, make_certificates(folder), mon, rgw, tls)
    try:
        ceph.set_up()
        ceph.start_monitor()
        ceph.start_storage()
        ceph.start_gateway()
        ceph.add_user()
        ceph.add_role()
        yield ceph
    finally:
        for process in reversed(ceph.processes):
            end(process, signal.SIGKILL)
