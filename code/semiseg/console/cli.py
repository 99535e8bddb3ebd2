"""The command line. Commands import what they need when they run, so that --help answers at once."""

import gc
import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from semiseg.console.options import read_list, read_methods, read_pairs, read_selection, stale_policy
from semiseg.console.terminal import console
from semiseg.errors import REMEDIES, UserError, UserErrors, told

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

DataDir = Annotated[Path, typer.Option("--data-dir", envvar="SEMISEG_DATA", help="Folder of prepared data sets.")]
MethodsDir = Annotated[Path | None, typer.Option(help="Folder with further files of methods and networks.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Jobs = Annotated[int | None, typer.Option(help="Runs at the same time.")]
Executor = Annotated[str, typer.Option(help="Where runs are carried out; any other word lists what there is.")]
ExecutorOptions = Annotated[
    list[str] | None, typer.Option("--executor-set", help="An option of the executor: partition=gpu.")
]
SplitsDir = Annotated[
    Path | None,
    typer.Option("--splits", envvar="SEMISEG_SPLITS", help="Folder of frozen splits; DATA_DIR/splits by default."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RerunStale = Annotated[bool, typer.Option("--rerun-stale", help="Repeat runs that were made otherwise than now.")]
KeepStale = Annotated[bool, typer.Option("--keep-stale", help="Keep such runs, marked in every table.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, training.steps=100; for several, repeat it.")
]

LOADING = "Loading PyTorch"


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"semiseg {version('semiseg')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def _semiseg(version: Version = False) -> None:
    """A benchmark suite for semi-supervised medical image segmentation."""


@app.command()
def methods(as_json: Json = False, methods_dir: MethodsDir = None) -> None:
    """List every method and start, one per line.

    Methods that learn something else than masks stand apart. With --json also the paper and the file of each.
    """
    from semiseg.console.lists import list_methods

    list_methods(methods_dir, as_json)


@app.command()
def networks(as_json: Json = False, methods_dir: MethodsDir = None) -> None:
    """List every network, one per line.

    With 2D or 3D, and the weights it can start from; with --json also its file.
    """
    from semiseg.console.lists import list_networks

    list_networks(methods_dir, as_json)


@app.command()
def datasets(as_json: Json = False, data_dir: DataDir = Path("data")) -> None:
    """List every data set, one per line.

    With how to get it, its classes, its licence, and what is segmented.
    """
    from semiseg.console.lists import list_datasets

    list_datasets(data_dir, as_json)


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="A name that `semiseg datasets` lists.")],
    source: Annotated[Path | None, typer.Option(help="Folder or archive with the original files.")] = None,
    out: Annotated[Path, typer.Option(envvar="SEMISEG_DATA", help="Folder for the prepared file.")] = Path("data"),
    raw: Annotated[
        Path | None,
        typer.Option(envvar="SEMISEG_RAW", help="Folder for downloads and unpacked archives; OUT/raw by default."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Loading processes; by default as many as there are processors.")
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(
            help="For grey masks of your own: the value from which on they show the object, such as 128; "
            "of several classes one value each: 64,192."
        ),
    ] = "",
) -> None:
    """Turn a data set into the suite's format.

    It is downloaded where its owner allows that, generated if it is embedded, or read from --source.
    """
    from semiseg.console.preparing import next_command, prepare_dataset

    path = prepare_dataset(name, source, out, jobs, raw, threshold)
    console.print(f"Next: {next_command(name, path)}", highlight=False, soft_wrap=True)


@app.command()
def run(
    benchmark: Annotated[Path, typer.Argument(help="A file such as benchmarks/quick.yaml, or a name: quick.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the results; results/NAME by default.")] = None,
    jobs: Jobs = None,
    executor: Executor = "local",
    executor_options: ExecutorOptions = None,
    device: Device = "auto",
    methods: Annotated[str, typer.Option(help="Only these, or also these: a,b.")] = "",
    labels: Annotated[str, typer.Option(help="Only these: 5%,20%, or 3 patients.")] = "",
    folds: Annotated[str, typer.Option(help="Only these folds: 0,1.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these seeds: 0.")] = "",
    methods_dir: MethodsDir = None,
    data_dir: DataDir = Path("data"),
    splits: SplitsDir = None,
    overrides: Overrides = None,
    rerun_stale: RerunStale = False,
    keep_stale: KeepStale = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Only the runs that failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done.")] = False,
) -> None:
    """Carry out what is left of a benchmark, and report it."""
    with console.status(LOADING):
        from semiseg.console.running import carry_out
    from semiseg.console.terminal import show_report
    from semiseg.embedded import find_benchmark
    from semiseg.executors import make_executor
    from semiseg.settings import load_benchmark
    from semiseg.training.places import Places

    if retry_failed and rerun_stale:
        raise UserError("--retry-failed and --rerun-stale: choose one of them; the second repeats failed runs, too.")
    options = {"device": device, "jobs": jobs, "dry_run": dry_run}
    carrier = make_executor(executor, options | read_pairs(executor_options, "--executor-set"))
    settings = load_benchmark(find_benchmark(benchmark), read_pairs(overrides, "--set"))
    results = out or Path("results") / settings.name
    places = Places(results, data_dir, splits or data_dir / "splits", methods_dir)
    selection = read_selection(methods, labels, folds, seeds)
    failed: Literal["only", "too"] = "only" if retry_failed else "too"
    missing = carry_out(settings, places, selection, carrier, stale_policy(rerun_stale, keep_stale), failed)
    if dry_run:
        return
    if (results / "index.html").exists():
        show_report([results], results)
    if missing:
        are = "run is" if missing == 1 else "runs are"
        console.print(f"{missing} {are} not finished; `semiseg status {results}` says why.", style="red")
        raise typer.Exit(1)


@app.command()
def new_benchmark(
    name: Annotated[str, typer.Argument(help="Name of the benchmark and its file.")],
    data: Annotated[str, typer.Option(help="Name of a prepared data set.")],
    out: Annotated[Path | None, typer.Option(help="The file; benchmarks/NAME.yaml by default.")] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, help="How long it may take on this machine; 2, or 12 with a GPU.")
    ] = None,
    device: Device = "auto",
    data_dir: DataDir = Path("data"),
) -> None:
    """Show a data set, and write a benchmark for it.

    The benchmark fits this machine and says the reason for every value.
    """
    with console.status(LOADING):
        from semiseg.console.new_benchmark import new_benchmark as write

    write(name, data, out or Path("benchmarks", f"{name}.yaml"), data_dir, device, hours)


@app.command()
def tune(
    benchmark: Annotated[
        Path, typer.Argument(help="A file such as benchmarks/development_cardiac.yaml, or a name: development_cardiac.")
    ],
    trials: Annotated[int, typer.Option(min=1, help="Settings to try of every method, the published ones first.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for runs, results/tuning/NAME by default; where it is given, for tuned.yaml, too."),
    ] = None,
    jobs: Jobs = None,
    executor: Executor = "local",
    executor_options: ExecutorOptions = None,
    device: Device = "auto",
    methods: Annotated[str, typer.Option(help="Only these now, or also these: a,b.")] = "",
    labels: Annotated[str, typer.Option(help="With these, not the file's: 5%,20%, or 3 patients.")] = "",
    folds: Annotated[str, typer.Option(help="On training cases of these folds, not the file's: 0,1.")] = "",
    inner_folds: Annotated[str, typer.Option(help="Tested on these of the inner folds 0 to 4; by default 0,1.")] = "",
    methods_dir: MethodsDir = None,
    data_dir: DataDir = Path("data"),
    splits: SplitsDir = None,
    overrides: Overrides = None,
    rerun_stale: RerunStale = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done.")] = False,
) -> None:
    """Choose every method's settings by equal trials.

    Trials are tested on inner folds of the training cases; what is best is written to tuned/NAME.yaml beside the file.
    """
    import shlex

    with console.status(LOADING):
        from semiseg.console.tuning import tune as tune_methods
    from semiseg.embedded import find_benchmark
    from semiseg.executors import make_executor
    from semiseg.settings import load_benchmark
    from semiseg.training.places import Places

    carrier = make_executor(
        executor, {"device": device, "jobs": jobs, "dry_run": dry_run} | read_pairs(executor_options, "--executor-set")
    )
    asked = {"labels": labels, "folds": folds, "inner_folds": inner_folds}
    lists = {key: read_list(text) for key, text in asked.items() if text}
    file = find_benchmark(benchmark)
    settings = load_benchmark(file, read_pairs(overrides, "--set") | lists)
    results = out or Path("results", "tuning", settings.name)
    beside = benchmark.parent
    if file != benchmark and file.is_relative_to(Path.cwd()):  # by its name, in a checkout
        beside = file.parent.relative_to(Path.cwd())
    command = ["semiseg", "tune", benchmark.as_posix(), "--trials", str(trials)]  # what a choice depends on
    command += [part for key, text in asked.items() if text for part in (f"--{key.replace('_', '-')}", text)]
    command += [part for override in overrides or [] for part in ("--set", override)]
    if tune_methods(
        settings,
        Places(results, data_dir, splits or data_dir / "splits", methods_dir),
        trials,
        read_methods(methods),
        carrier,
        stale_policy(rerun_stale, keep=False),
        out / "tuned.yaml" if out else beside / "tuned" / f"{settings.name}.yaml",
        shlex.join(command),
    ):
        raise typer.Exit(1)


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A name that `semiseg methods` lists.")],
    data: Annotated[str, typer.Option(help="Name of a prepared data set.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; results/train_DATA by default, or train_DATA-2 for other settings."),
    ] = None,
    benchmark: Annotated[
        Path, typer.Option(help="Benchmark, a file or a name, whose network and training are used.")
    ] = Path("quick"),
    labels: Annotated[str, typer.Option(help="How many of the training cases: 5%, 3 patients, 10 cases.")] = "5%",
    fold: Annotated[
        int, typer.Option(min=0, max=49, help="0 to 4; 5 to 9 are those of the next repeat, and so on.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Any number.")] = 0,
    device: Device = "auto",
    methods_dir: MethodsDir = None,
    data_dir: DataDir = Path("data"),
    splits: SplitsDir = None,
    overrides: Overrides = None,
    rerun_stale: RerunStale = False,
    keep_stale: KeepStale = False,
) -> None:
    """Train and evaluate one method on one fold."""
    with console.status(LOADING):
        from semiseg.benchmarks.expansion import Selection
        from semiseg.console.running import carry_out
        from semiseg.console.single import named_after, own_folder, single_training
    from semiseg.embedded import find_benchmark
    from semiseg.executors import make_executor
    from semiseg.settings import load_benchmark
    from semiseg.training.places import Places

    like = load_benchmark(find_benchmark(benchmark), {})
    settings = single_training(like, method, data, labels, fold, seed, read_pairs(overrides, "--set"))
    out = out or own_folder(Path("results", f"train_{data}"), settings)
    settings = settings.model_copy(update={"name": named_after(out)})
    executor = make_executor("local", {"device": device, "jobs": 1})
    places = Places(out, data_dir, splits or data_dir / "splits", methods_dir)
    if carry_out(settings, places, Selection(), executor, stale_policy(rerun_stale, keep_stale)):
        raise typer.Exit(1)
    for record in sorted(out.glob(f"runs/{method}/*/fold-{fold}/seed-{seed}/run.json")):
        console.print(f"Run: {record.parent}", highlight=False, soft_wrap=True)


@app.command()
def status(
    results: Annotated[Path, typer.Argument(help="A folder such as results/quick.")],
    methods: Annotated[str, typer.Option(help="Only these: a,b.")] = "",
    labels: Annotated[str, typer.Option(help="Only these: 5%,20%, or 3 patients.")] = "",
    folds: Annotated[str, typer.Option(help="Only these folds: 0,1.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these seeds: 0.")] = "",
    methods_dir: MethodsDir = None,
    data_dir: DataDir = Path("data"),
    splits: SplitsDir = None,
) -> None:
    """Count finished, stale, running, failed and left runs.

    With the reasons, and the time that is left.
    """
    with console.status(LOADING):
        from semiseg.console.standings import print_standings
    from semiseg.settings import load_benchmark
    from semiseg.training.places import Places

    if not results.is_dir():
        raise UserError(f"{results}: no such results folder; name the one that `semiseg run` wrote.")
    if not (results / "benchmark.yaml").exists():
        raise UserError(f"{results}: holds no benchmark.yaml; give the folder of a benchmark's results (results/NAME).")
    settings = load_benchmark(results / "benchmark.yaml", {})
    selection = read_selection(methods, labels, folds, seeds)
    print_standings(settings, Places(results, data_dir, splits or data_dir / "splits", methods_dir), selection)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="A folder such as results/quick, or several to rank over.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; beside the results by default, if it is one folder.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="The method that others are compared with, the lower bound by default; "
            "or an earlier folder of results: say what changed."
        ),
    ] = None,
    add: Annotated[
        list[Path] | None, typer.Option(help="A cases.csv of your own, shown beside the runs and marked as theirs.")
    ] = None,
) -> None:
    """Rebuild tables, plots and page from stored numbers."""
    from semiseg.console.terminal import show_report

    folders = list(dict.fromkeys(results))
    if len(folders) > 1 and (against or add):
        raise UserError("--against and --add take a single folder of results; name one.")
    if len(folders) > 1 and out is None:
        raise UserError("--out is needed with several folders: say where their common report goes.")
    with console.status("Writing tables, plots and page"):
        from semiseg.report import report as write_report
        from semiseg.report import report_several

        if len(folders) > 1 and out:
            report_several(folders, out)
        else:
            write_report(folders[0], out, against, add or ())
    show_report(folders, out or folders[0])


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    images: Annotated[
        Path, typer.Argument(help="An image, or a folder of images; of DICOM, the folder of a series or of several.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")],
    device: Device = "auto",
    methods_dir: MethodsDir = None,
) -> None:
    """Write masks for new images with a finished run."""
    with console.status(LOADING):
        from semiseg.console.predicting import predict as write_masks
    from semiseg.training.precision import choose_device

    write_masks(run, images, out, choose_device(device), methods_dir)


@app.command()
def new_method(
    name: Annotated[str, typer.Argument(help="Name of the method and its file: letters, digits, underscores.")],
    directory: Annotated[Path, typer.Option("--dir", help="Where to put the file.")] = Path("methods"),
) -> None:
    """Write a working method to start from, with its test."""
    from semiseg.console.scaffold import write_scaffold

    paths = write_scaffold(name, directory)
    for path in paths:
        console.print(f"{path}: written", highlight=False, soft_wrap=True)
    console.print(f"Next: semiseg check-method {paths[0]}", highlight=False, soft_wrap=True)


@app.command()
def check_method(
    method: Annotated[str, typer.Argument(help="A file such as methods/cps.py, or a name; wherever it comes from.")],
    methods_dir: MethodsDir = None,
) -> None:
    """Check a method against the plugin contract.

    In 2D and 3D, one line for each check, in a minute or two. Networks of other files are found with --methods-dir.
    """
    from semiseg.console.checking import check_method as check

    if failures := check(method, methods_dir):
        print(f"semiseg: {failures} checks failed.", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def check_network(
    network: Annotated[str, typer.Argument(help="A file with ARCHITECTURES, or a name that `semiseg networks` lists.")],
    methods_dir: MethodsDir = None,
) -> None:
    """Check a network against what methods rely on.

    Or all networks of a file; one line for each check, in seconds.
    """
    from semiseg.console.checking import check_network as check

    if failures := check(network, methods_dir):
        print(f"semiseg: {failures} checks failed.", file=sys.stderr)
        raise typer.Exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Answer at once; what is at work may need a while to keep what it has done."""
    print("semiseg: stopping ...", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: bad input ends in one line per problem and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's end of time is like Ctrl-C
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background
        signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # no ✓ in some alphabet is worth a benchmark
            stream.reconfigure(errors="replace")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads do not spin; read when torch loads
    gc.set_threshold(20_000)  # imports make objects that stay, and need not be gone through again and again
    try:
        app()
    except UserErrors as error:
        for message in error.messages:
            print(f"semiseg: {message}", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        print(f"semiseg: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if not (error.strerror and (error.filename or error.errno in REMEDIES)):
            raise
        print(f"semiseg: {told(error, 'check the path and its permissions')}.", file=sys.stderr)
        sys.exit(2)
