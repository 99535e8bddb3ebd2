"""A real Slurm of one node for tests: controller, node and munge as child processes that end with the test."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # daemons are not in everybody's path

# Processes are tracked without cgroups, which containers seldom offer; 4 processors are declared whatever the machine
# has, so that jobs run side by side.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,defer_batch,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What of Slurm is not installed here."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run a cluster in a folder, and give the environment variables with which Slurm's commands find it."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    user, host = getpass.getuser(), socket.gethostname().partition(".")[0]
    controller_port, node_port = free_ports(2)
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCHED}
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, user=user, folder=folder, controller_port=controller_port, node_port=node_port)
    )
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    with ExitStack() as daemons:
        for command in (munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            log = daemons.enter_context((folder / f"{command[0]}.log").open("w"))
            process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
            daemons.callback(process.wait, 20)
            daemons.callback(process.terminate)
            if command is munge:
                wait_for((folder / "munge.socket").exists, process, folder)
        idle = ["sinfo", "--noheader", "--format=%T"]
        wait_for(lambda: "idle" in ask(idle, environment), process, folder)
        try:
            yield environment
        finally:
            ask(["scancel", f"--user={user}"], environment)
            wait_for(lambda: not ask(["squeue", "--noheader"], environment), process, folder)


def ask(command: list[str], environment: dict[str, str]) -> str:
    """What one of Slurm's commands prints."""
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False).stdout


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a condition holds, or say what the daemons logged."""
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end or process.poll() is not None:
            logs = "".join(path.read_text()[-1000:] for path in folder.glob("*.log"))
            raise RuntimeError(f"Slurm does not work here:\n{logs}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in bound]
