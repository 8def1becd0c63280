"""A Slurm of two nodes on this machine, with accounting, for the tests of clusters; it touches nothing of a real one.

Two slurmd share the machine under the names n1 and n2. Everything lies in one directory and listens on free ports of
the loopback interface; the daemons run as root, as Slurm's must to start jobs, so the tests are skipped for others.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

NEEDED = ("sbatch", "slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db")
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmdSpoolDir={directory}/spool-%n
StateSaveLocation={directory}/state
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting}
AccountingStoragePass={directory}/munge/socket
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs=4 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2} CPUs=4 RealMemory=8000
PartitionName=short Nodes=n1,n2 Default=YES State=UP
PartitionName=other Nodes=n1,n2 State=UP
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_accounts
LogFile={directory}/slurmdbd.log
PidFile={directory}/slurmdbd.pid
"""
TABLES = """
create database slurm_accounts; create user slurm@'127.0.0.1' identified by 'slurm';
create user slurm@localhost identified by 'slurm';
grant all on slurm_accounts.* to slurm@'127.0.0.1'; grant all on slurm_accounts.* to slurm@localhost;
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None when it can."""
    missing = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
    if missing:
        return (
            f"no {', '.join(missing)} here: apt-get install --no-install-recommends slurm-wlm slurmdbd munge "
            "mariadb-server"
        )
    return None if os.geteuid() == 0 else "only root can start Slurm's daemons"


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Cluster:
    """A context manager; ``environment`` is what Slurm's commands and jobs need to find it."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._stop = ExitStack()
        self.environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(directory / "slurm.conf")}

    def run(self, *command: str) -> str:
        """What a command prints; RuntimeError with that when it fails."""
        done = subprocess.run(
            command, env=self.environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")
        return done.stdout

    def __enter__(self) -> Cluster:
        with self._stop:
            self._start()
            self._stop = self._stop.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()

    def _start(self) -> None:
        here = self._directory
        ports = dict(zip(("controller", "accounting", "database", "node1", "node2"), free_ports(5), strict=True))
        values = {"directory": here, "host": socket.gethostname().partition(".")[0], **ports}
        here.chmod(0o755)
        for name in ("state", "munge", "database"):
            (here / name).mkdir(mode=0o755)
        (here / "slurm.conf").write_text(SLURM_CONF.format(**values))
        (here / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))
        (here / "slurmdbd.conf").chmod(0o600)

        key = here / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        munge = [f"--{name}={here}/munge/{name}" for name in ("pid-file", "log-file", "seed-file", "socket")]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *munge)
        self._until("munged", lambda: (here / "munge" / "socket").exists())

        data = ("--no-defaults", "--user=root", f"--datadir={here}/database/data")
        self.run("mariadb-install-db", *data, "--auth-root-authentication-method=normal")
        at = f"--socket={here}/database/socket"
        self._daemon("mariadbd", *data, at, "--bind-address=127.0.0.1",
                     f"--port={ports['database']}", "--innodb-buffer-pool-size=64M")  # fmt: skip
        self._until("mariadbd", lambda: self._works("mariadb", at, "-u", "root", "-e", "select 1"))
        self.run("mariadb", at, "-u", "root", "-e", TABLES)

        self._daemon("slurmdbd", "-D")
        self._until("slurmdbd", lambda: self._works("sacctmgr", "-i", "list", "cluster"))
        self.run("sacctmgr", "-i", "add", "cluster", "test")
        self.run("sacctmgr", "-i", "add", "account", "lab")
        self.run("sacctmgr", "-i", "add", "user", "root", "account=lab")
        self._daemon("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._daemon("slurmd", "-D", "-N", node)
        idle = ["idle"] * 4  # each node in two partitions
        self._until("the nodes", lambda: self._works("sinfo") and self.run("sinfo", "-hNo", "%t").split() == idle)

    def _daemon(self, *command: str) -> None:
        """Start a daemon in the foreground, to be ended with this cluster."""
        with open(self._directory / "daemons.log", "ab") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self._stop.callback(_end, process)

    def _works(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0

    def _until(self, what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                logs = (f"== {p}\n{p.read_text(errors='replace')[-2000:]}" for p in self._directory.glob("*.log"))
                raise RuntimeError("\n".join([f"{what} did not start", *logs]))
            time.sleep(0.1)


def free_ports(number: int) -> Sequence[int]:
    """Ports of the loopback interface that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
