"""Runs on a Slurm cluster: none is lost, repeated or waited for in vain, whatever happens to a job."""

import os
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from threading import Thread

import pytest
import torch

from executors.slurm_cluster import ask, cluster, missing_programs
from semiseg.contract import CPU, tiny_dataset
from semiseg.errors import UserError
from semiseg.executors import make_executor, slurm, slurm_job
from semiseg.executors.slurm_job import Job, Notes, carry_out_list
from semiseg.settings import RunSpec, TrainingSettings
from semiseg.training.files import read_record
from semiseg.training.lease import holder
from semiseg.training.places import Places
from semiseg.training.run import execute

STEPS = 40
DAWDLING = '''
"""A method that takes its time from the fifth step on, as long as it is told to."""

import time
from pathlib import Path

from semiseg.methods.supervised import Supervised

HERE = Path(__file__).parent


class Dawdling(Supervised):
    """Notes its steps."""

    def losses(self, batch, progress):
        with (HERE / "steps").open("a") as file:
            file.write(f"{progress.step}\\n")
        if progress.step >= 4 and (HERE / "dawdle").exists():
            time.sleep(0.5)
        return super().losses(batch, progress)
'''


def run_of(method="supervised", fold=0, steps=6):
    training = TrainingSettings(
        steps=steps, size=(32, 32), labeled_batch=2, unlabeled_batch=2, learning_rate=0.03, precision="float32",
        checkpoint_every=STEPS,
    )  # fmt: skip
    return RunSpec(
        benchmark="b", dataset="tiny", method=method, implementation=method, config={}, labels=0.25, fold=fold, seed=0,
        network="unet_small", weights=None, training=training,
    )  # fmt: skip


def executor(**options):
    tiny = {"cpus_per_job": 1, "hours": 0.1, "notice": 30, "poll": 0.3}
    return make_executor("slurm", tiny | options)


@pytest.fixture
def places(tmp_path):
    for name in ("data", "methods"):
        (tmp_path / name).mkdir()
    tiny_dataset(tmp_path / "data" / "tiny.h5", 2)
    (tmp_path / "methods" / "dawdling.py").write_text(DAWDLING)
    return Places(tmp_path / "results", tmp_path / "data", tmp_path / "splits", tmp_path / "methods")


# What needs no Slurm


def test_every_run_is_on_one_list_and_no_job_gets_all_the_long_ones():
    runs = [run_of(method, fold) for fold in range(5) for method in ("long", "short")]
    lists = slurm.deal(runs, 5)
    assert sorted(str(spec.folder) for own in lists for spec in own) == sorted(str(spec.folder) for spec in runs)
    assert [len(own) for own in lists] == [5, 5]
    assert sorted(sum(spec.method == "long" for spec in own) for own in lists) == [2, 3]
    assert [own[0] for own in lists] == runs[:2]
    assert sorted(len(own) for own in slurm.deal(runs, 4)) == [3, 3, 4]


def test_a_dry_run_prints_the_script_and_the_lists_where_there_is_no_slurm(places, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    options = {"partition": "gpu", "account": "lab", "qos": "low", "hours": 2.5, "memory": "16G", "gpus_per_job": 1}
    options |= {"cpus_per_job": 6, "notice": 90, "jobs": 2, "runs_per_job": 1, "extra": {"constraint": "a100"}}
    runs = [run_of(fold=fold) for fold in range(3)]
    assert list(executor(dry_run=True, **options).carry_out(runs, places)) == []
    lines = capsys.readouterr().out.splitlines()
    for flag in ("partition=gpu", "account=lab", "qos=low", "time=150", "mem=16G", "gpus-per-node=1", "requeue",
                 "cpus-per-task=6", "signal=USR2@90", "array=0-2%2", "constraint=a100"):  # fmt: skip
        assert f"#SBATCH --{flag}" in lines
    assert [line for line in lines if line.startswith("job")] == [f"job {i}: {runs[i].folder}" for i in range(3)]
    assert not places.results.exists()


def test_without_submitit_or_slurm_one_line_says_what_is_missing(places, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"^--executor slurm: there is no sbatch on this machine; .*$"):
        list(executor().carry_out([run_of()], places))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"^--executor slurm needs submitit; pip install 'semiseg\[slurm\]'\.$"):
        list(executor().carry_out([run_of()], places))


@pytest.mark.parametrize("options", [{"hours": 0.01}, {"device": "cuda"}, {"device": "cpu", "gpus_per_job": 1}])
def test_options_that_contradict_each_other_are_refused_before_anything_is_submitted(options):
    with pytest.raises(UserError, match="options of --executor slurm: "):
        executor(**options)


def test_precision_follows_what_the_jobs_train_on_not_the_machine_that_submits():
    assert executor().device_type == "cpu"
    assert executor(gpus_per_job=1).device_type == "cuda"


@pytest.fixture
def in_job(tmp_path, monkeypatch):
    """Lets a test be job 7_3: gives its notes, and what it carried out and called."""
    done = []
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    for name, value in {"JOB_ID": "7", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(slurm_job.subprocess, "run", lambda command, check: done.append(" ".join(command)))
    monkeypatch.setattr(slurm_job, "stop_on_signals", lambda signals: lambda: False)

    def carry_out(spec, places, device, stop):
        done.append(spec.fold)
        return {"status": "left" if stop() else "failed"}

    monkeypatch.setattr(slurm_job, "execute", carry_out)
    return Notes(tmp_path, "7_3"), done


def test_a_job_that_starts_again_repeats_nothing_that_ended_not_even_a_failure(in_job, places):
    notes, done = in_job
    runs = [run_of(fold=fold) for fold in range(3)]
    notes.note(runs[0], {"status": "failed"})
    notes.note(runs[1], slurm_job.BEGUN)
    carry_out_list(runs, places, "cpu", torch.get_num_threads())
    assert done == [1, 2]


@pytest.mark.parametrize(("number", "calls"), [(signal.SIGUSR2, ["scontrol requeue 7_3"]), (signal.SIGTERM, [])])
def test_a_job_queues_itself_again_when_its_hours_are_over_but_not_when_it_is_cancelled(
    in_job, places, monkeypatch, number, calls
):
    _, done = in_job
    monkeypatch.setattr(slurm_job, "stop_on_signals", lambda signals: lambda: number in signals and bool(done))
    with pytest.raises(SystemExit):
        carry_out_list([run_of(fold=fold) for fold in range(3)], places, "cpu", torch.get_num_threads())
    assert done == [0, *calls]


def test_a_queued_job_is_waited_for_only_if_it_will_do_the_very_same_run(tmp_path):
    mine, done, other = run_of(fold=0), run_of(fold=1), run_of(fold=2)
    Job(tmp_path, "7_0", [mine, done, other]).write_list()
    Notes(tmp_path, "7_0").note(done, {"status": "failed"})
    changed = run_of(fold=2, steps=7)
    [job] = Job.queued(tmp_path, {"7_0": "PENDING"}, [mine, done, changed])
    assert (job.number, job.runs) == ("7_0", [mine])
    committed = mine.model_copy(update={"tuned": "c" * 40})  # meanwhile, with the same settings
    assert Job.queued(tmp_path, {"7_0": "PENDING"}, [committed])[0].runs == [committed]
    assert Job.queued(tmp_path, {"7_0": "CANCELLED"}, [mine]) == Job.queued(tmp_path, {}, [mine]) == []


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_submitted_twice_because_the_queue_cannot_be_asked(places, monkeypatch, dry_run):
    (folder := places.results / "slurm").mkdir(parents=True)
    Job(folder, "7", [run_of()]).write_list()
    monkeypatch.setattr(slurm, "job_states", lambda: None)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    with pytest.raises(UserError, match="squeue does not answer") as error:
        list(executor(dry_run=dry_run).carry_out([run_of()], places))
    assert "\n" not in str(error.value)


def test_a_controller_that_does_not_answer_fails_no_run(places, monkeypatch):
    folder, spec, looks = places.results / "slurm", run_of(), []
    folder.mkdir(parents=True)
    Job(folder, "7", [spec]).write_list()

    def states():
        looks.append(None)
        if len(looks) == 4 * slurm.LOOKS:
            Notes(folder, "7").note(spec, {"status": "finished"})
        return {"7": "RUNNING"} if len(looks) == 1 else None

    monkeypatch.setattr(slurm, "job_states", states)
    assert list(executor(poll=0.001).carry_out([spec], places)) == [(spec, {"status": "finished"})]


def test_what_slurm_did_to_a_job_and_what_to_do_about_it_is_the_reason_of_the_run_that_it_was_at(places):
    folder, begun, waiting = places.results / "slurm", run_of(fold=0), run_of(fold=1)
    folder.mkdir(parents=True)
    Notes(folder, "7_3").note(begun, slurm_job.BEGUN)
    (folder / "7_3_0_log.out").write_text("once\nslurmstepd: error: Detected 1 oom_kill event\n\n")
    (places.results / begun.folder).mkdir(parents=True)
    [(spec, record)] = slurm._bury(Job(folder, "7_3", [begun, waiting]), "OUT_OF_MEMORY", places)
    assert spec == begun
    assert record == read_record(places.results / begun.folder)
    for part in ("Slurm job 7_3 ended as OUT_OF_MEMORY (ask for more memory", "Detected 1 oom_kill event"):
        assert part in record["reason"]


# A real Slurm


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    """Ask a real Slurm of one node."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not found; tests/executors/install_slurm.sh installs Slurm")
    with ExitStack() as stack:
        try:
            variables = stack.enter_context(cluster(tmp_path_factory.mktemp("slurm")))
        except RuntimeError as error:
            pytest.skip(str(error))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        yield lambda *command: ask(list(command), variables)


def disturbed(places, runs, disturb, **options):
    """Carry out runs and disturb all jobs in the middle of their first one; gives the records by fold."""
    (places.methods_dir / "dawdle").touch()

    def wait_and_disturb():
        wait_for(lambda: numbers(places) and steps(places).count("4") == len(numbers(places)))
        disturb(*numbers(places))
        (places.methods_dir / "dawdle").unlink()

    thread = Thread(target=wait_and_disturb)
    thread.start()
    records = {spec.fold: record for spec, record in executor(**options).carry_out(runs, places)}
    thread.join()
    return records


def numbers(places):
    """The jobs that were submitted."""
    return sorted(path.name.removesuffix("_list.json") for path in places.results.glob("slurm/*_list.json"))


def steps(places):
    """The steps that were begun, of all runs together."""
    path = places.methods_dir / "steps"
    return path.read_text().split() if path.exists() else []


def wait_for(condition):
    end = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_an_array_of_jobs_finishes_all_runs_and_is_what_the_dry_run_said(queue, places, capsys):
    runs = [run_of(fold=fold) for fold in range(3)]
    list(executor(runs_per_job=2, dry_run=True).carry_out(runs, places))
    said = capsys.readouterr().out
    records = {spec.fold: record for spec, record in executor(runs_per_job=2).carry_out(runs, places)}
    assert [records[fold]["status"] for fold in range(3)] == ["finished"] * 3
    for spec in runs:
        assert read_record(places.results / spec.folder) == records[spec.fold]
    [script] = places.results.glob("slurm/*_submission.sh")
    assert said.startswith(script.read_text())
    assert len(numbers(places)) == 2


@pytest.mark.slow
def test_jobs_that_are_sent_back_into_the_queue_end_as_if_they_had_never_been_disturbed(queue, places):
    runs, elsewhere = [run_of("dawdling", fold, STEPS) for fold in range(2)], replace(places, results=places.data / "r")
    for spec in runs:
        execute(spec, elsewhere, CPU)
    (places.methods_dir / "steps").unlink()

    def send_back(requeued, out_of_time):
        queue("scontrol", "requeue", requeued)
        queue("scancel", "--signal=USR2", out_of_time)
        wait_for(lambda: queue("squeue", "--noheader", "--array", "--format=%T").split() == ["PENDING"] * 2)
        for number in (requeued, out_of_time):  # rather than in two minutes
            queue("scontrol", "update", f"JobId={number}", "StartTime=now")

    records = disturbed(places, runs, send_back, runs_per_job=1)
    assert Counter(steps(places)) == {str(step): 2 for step in range(STEPS)}, "they went on where they were"
    for spec in runs:
        assert records[spec.fold]["status"] == "finished"
        assert len(list((places.results / spec.folder).glob("events.out.tfevents.*"))) == 2, "in a second process"
        one, other = (p.results / spec.folder / "cases.csv" for p in (places, elsewhere))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_process_that_dies_costs_its_run_and_another_job_does_the_others(queue, places):
    runs = [run_of("dawdling", fold, STEPS) for fold in range(2)]
    records = disturbed(places, runs, lambda _: os.kill(holder(places.results / runs[0].folder).pid, signal.SIGKILL))
    assert [records[fold]["status"] for fold in range(2)] == ["failed", "finished"]
    assert "ended as FAILED; its last words were: srun: " in records[0]["reason"]
    assert read_record(places.results / runs[0].folder) == records[0]
    assert len(numbers(places)) == 2


@pytest.mark.slow
def test_runs_of_a_cancelled_job_fail_with_that_reason_and_nothing_is_submitted_again(queue, places):
    runs = [run_of("dawdling", fold, STEPS) for fold in range(2)]
    records = disturbed(places, runs, lambda number: queue("scancel", number))
    for fold in range(2):
        assert records[fold]["status"] == "failed"
        assert "ended as CANCELLED" in records[fold]["reason"]
    assert not (places.results / runs[1].folder).exists()
    assert len(numbers(places)) == 1


@pytest.mark.slow
def test_jobs_outlive_the_command_and_the_next_one_watches_instead_of_submitting_twice(
    queue, places, capsys, monkeypatch
):
    def interrupt(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slurm.time, "sleep", interrupt)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                list(executor(extra={"hold": True}).carry_out([run_of()], places))
    [number] = numbers(places)
    assert capsys.readouterr().err.count(f"`scancel {number}` cancels them") == 2
    assert queue("squeue", "--noheader", "--states=PENDING", "--format=%i").split() == [number]


@pytest.mark.slow
def test_what_sbatch_refuses_is_said_in_one_line(queue, places):
    with pytest.raises(UserError, match=r"^--executor slurm: .*[Ii]nvalid partition .*does it take these .*$"):
        list(executor(partition="nowhere").carry_out([run_of()], places))


POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(("limit", "remedy"), [
    ("QOSMaxSubmitJobPerUserLimit", "3 jobs are too many at once; try --executor-set runs_per_job=4 and hours=8"),
    ("QOSMaxWallDurationPerJobLimit", "does it take these --executor-set options?"),
])  # fmt: skip
def test_too_many_jobs_at_once_are_told_from_a_wrong_option(places, monkeypatch, limit, remedy):
    class Full:
        def map_array(self, *arguments):
            raise RuntimeError(f"sbatch: error: {limit}\nsbatch: error: {POLICY}")

    monkeypatch.setattr(slurm.Slurm, "_sbatch", lambda self, folder: Full())
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    with pytest.raises(UserError) as error:
        slurm.Slurm(runs_per_job=2)._submit([run_of(fold=fold) for fold in range(5)], places)
    assert str(error.value).startswith(f"--executor slurm: {limit}; {POLICY}; {remedy}")


def test_how_a_number_is_the_name_of_an_account_is_said():
    with pytest.raises(UserError, match="account: Input should be a valid string, and a number is one in quotes"):
        make_executor("slurm", {"account": 12345})
