"""What Slurm says about jobs."""

import os
import subprocess

FINAL = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
)  # fmt: skip
ADVICE = {
    "OUT_OF_MEMORY": " (ask for more memory, or train on smaller batches)",
    "PREEMPTED": " (the cluster cancels what it preempts; ask for another partition or qos)",
    "TIMEOUT": " (a step or an evaluation took longer than notice; ask for more of it)",
}


def job_states() -> dict[str, str] | None:
    """The states of one's jobs by number, for some minutes also of those that have ended; None if Slurm is silent."""
    command = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--states=all", "--format=%i|%T"]
    answer = _ask(command)
    return None if answer is None else dict(line.strip().split("|") for line in answer.splitlines())


def lives(states: dict[str, str], number: str) -> bool:
    """Whether a job waits, runs, or goes back into the queue."""
    return states.get(number, "COMPLETED") not in FINAL


def final_state(states: dict[str, str], number: str) -> str:
    """How a job ended, by the queue or, if it has forgotten, by the accounting, which not every cluster has."""
    if number in states:
        return states[number]
    answer = _ask(["sacct", f"--jobs={number}", "--allocations", "--noheader", "--parsable2", "--format=State"])
    return (answer or "UNKNOWN").split()[0]  # of "CANCELLED by 1000"


def _ask(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout if answer.returncode == 0 else None
