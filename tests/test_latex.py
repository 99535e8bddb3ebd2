"""LaTeX tables: they fit the page of a paper, whole, and name what they need."""

import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.ft2font import FT2Font
from tests.test_report import retell, write_run

from semiseg.report.formats import Table, text
from semiseg.report.latex import latex
from semiseg.report.reading import read_results
from semiseg.report.tables import all_tables

WIDTH, HEIGHT = 345, 598  # pt: \textwidth and \textheight of \documentclass[a4paper]{article}
TYPE = {"footnotesize": (8, 9.5), "scriptsize": (7, 8)}  # pt: size and distance of lines
COMMITTED = sorted((Path(__file__).parent.parent / "results").glob("*/tables/*.tex"))
WIDER = 1.07  # Computer Modern at 8 and 7 pt, beside the same at 10 pt, in em: 0.531 and 0.569 for a digit's 0.5
FLOAT = re.compile(r"\\begin\{table\}.*?\\end\{table\}", re.DOTALL)
BODY = re.compile(
    r"\\smallskip\\(?P<size>\w+)\\setlength\{\\tabcolsep\}\{(?P<gap>[\d.]+)pt\}\n"
    r"\\begin\{tabularx?\}(?:\{\\linewidth\})?\{@\{\}(?P<columns>.*)@\{\}\}\n(?P<rows>.*)\\end\{tabularx?\}\n",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Sixteen methods between two bounds at three shares of labels, with long names, papers and distances."""
    root = tmp_path_factory.mktemp("many") / "many"
    for labels in (0.05, 0.2, 0.5):
        write_run(root, "plain", labels, 0, 0.4, role="lower", title="Supervised")
        for i in range(16):
            title = f"{'Entropy Minimization' if i % 2 else 'Min-Max Similarity'} {i}"
            write_run(root, f"method{i}", labels, 0, 0.5 + 0.02 * i, title=title)
    write_run(root, "full", 1.0, 0, 0.95, role="upper", title="Fully supervised")
    paper = {
        "title": "Efficient Semi-supervised Gross Target Volume of Nasopharyngeal Carcinoma Segmentation via "
        "Uncertainty Rectified Pyramid Consistency",
        "authors": "Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang and Raffel",
        "venue": "Pattern Recognition 2020",
    }
    retell(root, "method", paper=paper)
    retell(root, unit="pixels", citation="W. Ho et al.", source="https://where.example/" + "a_long_way/" * 12)
    one = read_results(root)
    runs = [replace(run, fold=f) for f in range(3) for run in one.finished if f < 2 or not run.method.endswith("2")]
    folds = [one.cases.assign(fold=f, dice=one.cases.dice - 0.1 * f) for f in range(3)]
    results = replace(one, finished=runs, cases=pd.concat(folds))
    for distance in ("hd95", "hd95_max", "asd"):
        results.cases[distance] *= 333 - 40 * results.cases.fold
    return {table.name: table for table in all_tables(results)}


@pytest.fixture(scope="module")
def texts(many):
    """All that a benchmark writes, and all that is committed."""
    written = {f"many/{name}": latex(table) for name, table in many.items()}
    return written | {f"{p.parents[1].name}/{p.stem}": p.read_text(encoding="utf-8") for p in COMMITTED}


def printed(cell):
    """The text of a cell, without commands."""
    words = re.sub(r"\\textbf\{(.*)\}|\\multicolumn\{.*?\{\\textit\{(.*)\}\}", r"\1\2", cell)
    for command, letter in (
        ("\\allowbreak{}", ""), ("$\\pm$", "±"), ("\\,", " "), ("$\\uparrow$", "↑"), ("$\\downarrow$", "↓"),
        ("$-$", "−"), ("$<$", "<"), ("$^\\dagger$", "†"), ("$^\\ddagger$", "‡"), ("--", "–"), ("\\", ""),
    ):  # fmt: skip
        words = words.replace(command, letter)
    return words.strip()


FONTS = {bold: FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/cm{'b' if bold else 'r'}10.ttf") for bold in (0, 1)}


@cache
def width(words, points, bold=False):
    """In pt, by the letters of Computer Modern that come with matplotlib, some by others of their width."""
    FONTS[bold].set_size(100, 72)
    FONTS[bold].set_text(words.translate(str.maketrans("±−<↑↓†‡–é", "+++nnttne")))
    return WIDER * points * FONTS[bold].get_width_height()[0] / 6400


def parts(tex):
    """Size, gap, shares of wrapped columns (None for others), rows of cells of each float."""
    for found in FLOAT.findall(tex):
        body = BODY.search(found)
        columns = [
            float(share) if share else None
            for share in re.findall(r">\{\\hsize=([\d.]+)\\hsize\\raggedright\\arraybackslash\}X|[lr]", body["columns"])
        ]
        lines = re.sub(r"\\(toprule|midrule|bottomrule)\n", "", body["rows"]).removesuffix("\n").split("\n")
        yield body["size"], float(body["gap"]), columns, [line.removesuffix(r" \\").split(" & ") for line in lines]


def letters(cell):
    """The lines of a cell, each as printed, and whether they are bold."""
    stacked = re.fullmatch(r"\\begin\{tabular\}\[b\]\{@\{\}r@\{\}\}(.*)\\end\{tabular\}", cell)
    return [printed(line) for line in (stacked[1].split(r"\\") if stacked else [cell])], cell.startswith(r"\textbf")


def test_no_table_is_wider_than_the_text_of_a_paper(texts):
    for name, tex in texts.items():
        for size, gap, columns, rows in parts(tex):
            points, cells = TYPE[size][0], [row for row in rows if not row[0].startswith(r"\multicolumn")]
            assert {len(row) for row in cells} == {len(columns)}, name
            widths = [
                max(width(line, points, bold) for row in cells for lines, bold in [letters(row[i])] for line in lines)
                for i in range(len(columns))
            ]
            room = WIDTH - 2 * gap * (len(columns) - 1)
            room -= sum(w for w, share in zip(widths, columns, strict=True) if not share)
            assert room >= 0, (name, room)
            for i, share in enumerate(columns):
                if share:
                    words = [word for row in cells for word in printed(row[i].replace(r"\allowbreak{}", " ")).split()]
                    own = share * room / sum(s is not None for s in columns)
                    assert own >= max(width(word, points) for word in words), (name, i)


def test_no_table_is_higher_than_its_page(texts):
    """Lines of cells, of the notes below and of the title above."""
    for name, tex in texts.items():
        notes = re.findall(r"\\parbox\{\\linewidth\}\{\\scriptsize\\raggedright (.*)\}\n", tex)
        assert len(notes) <= 1, name
        for number, (size, gap, columns, rows) in enumerate(parts(tex)):
            points, distance = TYPE[size]
            room = WIDTH - 2 * gap * (len(columns) - 1)
            room -= sum(
                max(width(line, points) for row in rows if len(row) > 1 for line in letters(row[i])[0])
                for i, share in enumerate(columns)
                if share is None
            )
            lines = 0
            for row in rows:
                wrapped = [(cell, share) for cell, share in zip(row, columns, strict=False) if share]
                count = sum(share is not None for share in columns)
                taken = [width(printed(cell), points) / (share * room / count) for cell, share in wrapped]
                lines += max([1, *(-(-1.1 * lines // 1) for lines in taken)]) if len(row) > 1 else 1
            said = width(printed(notes[0]), 7) / WIDTH * 8 if notes and number == 0 else 0
            assert 24 + distance * lines + said < HEIGHT, (name, number)


def test_a_table_in_parts_loses_nothing(many):
    """Every method has every number of its row, below the title of its column and the share of its labels."""
    full, seen = many["full"], {}
    assert latex(full).count(r"\begin{table}") > 1
    for _, _, _, rows in parts(latex(full)):
        titles = [" ".join(letters(cell)[0]) for cell in rows[0]]
        labels = None
        for row in rows[1:]:
            if len(row) == 1:
                labels = printed(row[0]).removeprefix("Labels: ")
                continue
            for title, cell in zip(titles[1:], row[1:], strict=True):
                seen[labels, row[0], title] = printed(cell)
    expected = {
        (row[0], row[1], title): text(cell)
        for row in full.rows
        for title, cell in zip(full.columns[2:], row[2:], strict=True)
    }
    assert seen == expected


def test_parts_of_a_table_say_so_and_can_be_referred_to(many):
    tex = latex(many["full"])
    count = tex.count(r"\begin{table}")
    whole = f"tab:{many['full'].folder}-full"
    assert re.findall(r"\\label\{(.*)\}", tex) == [whole, *(f"{whole}-{n}" for n in range(2, count + 1))]
    caption = r"All metrics: Phantom (synthetic data), unet\_small, 7 training steps"
    continued = [f"{caption}, continued ({n} of {count})." for n in range(2, count + 1)]
    assert re.findall(r"\\caption\{(.*)\}", tex) == [f"{caption}.", *continued]


def test_a_file_names_the_packages_it_needs(texts):
    commands = {
        "booktabs": r"\toprule",
        "tabularx": r"\begin{tabularx}",
        "graphicx": "box{",
        "longtable": "{longtable}",
    }
    for name, tex in texts.items():
        first, rest = tex.split("\n", 1)
        packages = re.match(r"% needs \\usepackage\{(.*?)\}", first)[1].split(",")
        assert set(packages) == {p for p, c in commands.items() if c in rest.replace(r"\parbox{", "")}, name


def test_a_negative_difference_has_a_minus_sign():
    tex = latex(Table("t", "T", ["Method", "D"], [["A-1", "-1.20 to +0.30"]], []))
    assert r"A-1 & $-$1.20 to +0.30 \\" in tex


def test_a_long_address_does_not_run_over_the_margin(many):
    (note,) = re.findall(r"from (https.*)\.", latex(many["papers"]))
    assert max(width(printed(piece), 7) for piece in note.split(r"\allowbreak{}")) < 50


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_finds_nothing_to_complain_of(texts, tmp_path):
    body = "\n".join(f"\\typeout{{File {name}}}\n{tex}\\clearpage" for name, tex in texts.items())
    (tmp_path / "all.tex").write_text(
        "\\documentclass[a4paper]{article}\n\\usepackage{booktabs,tabularx}\n"
        f"\\begin{{document}}\n{body}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert "Output written" in log
    assert [line for line in log.splitlines() if re.match(r"Overfull|!|.*Float too large", line)] == []
