"""Plots: words that can be read, methods that can be told apart, outlines that show on any tissue and hide none."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.text import Text
from tests.test_report import write_run

from semiseg.report.curves import training_curves
from semiseg.report.overlays import overlays
from semiseg.report.plots import case_dice, label_efficiency
from semiseg.report.quality_cost import quality_cost
from semiseg.report.reading import read_results
from semiseg.report.style import RC, looks

DPI = 160


def make(root, methods, fractions=(0.05, 0.2)):
    """Two bounds and some methods between them."""
    for labels in fractions:
        write_run(root, "plain", labels, 0, 0.5, role="lower")
        for i in range(methods):
            write_run(root, f"method{i}", labels, 0, 0.55 + 0.02 * i)
    write_run(root, "full", 1.0, 0, 0.9, role="upper")
    return read_results(root)


def drawn(draw, results):
    with matplotlib.rc_context(RC):
        figure = draw(results)
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).draw()
    return figure


def pixels(figure):
    """(H, W, 3) in [0, 1], as the figure is drawn anew."""
    with matplotlib.rc_context(RC):
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def contrast(color, other):
    """Of colors (…, 3): https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""

    def luminance(c):
        c = np.asarray(c, float)
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    one, two = luminance(color), luminance(other)
    return (np.maximum(one, two) + 0.05) / (np.minimum(one, two) + 0.05)


@pytest.mark.parametrize("draw", [label_efficiency, quality_cost, case_dice, training_curves, overlays])
@pytest.mark.parametrize(("methods", "fractions"), [(1, (0.05, 0.2)), (5, (0.05, 0.2)), (3, (0.05,))])
def test_every_word_in_a_plot_can_be_read(tmp_path, draw, methods, fractions):
    """Its color has WCAG's contrast to what the plot has in its place when all words are left out."""
    words, draw_text = {}, Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda word, *rest: (words.setdefault(word), draw_text(word, *rest))[1])
        figure = drawn(draw, make(tmp_path, methods, fractions))
    words = [word for word in words if word.get_text().strip() and word.get_visible()]
    places = [word.get_window_extent() for word in words]
    colors = [to_rgb(word.get_color()) for word in words]
    figure.set_layout_engine("none")
    for word in words:
        word.set_color((0, 0, 0, 0))
    picture = pixels(figure)
    for word, box, color in zip(words, places, colors, strict=True):
        top, bottom = picture.shape[0] - round(box.y1), picture.shape[0] - round(box.y0)
        behind = picture[max(top, 0) : bottom, max(round(box.x0), 0) : round(box.x1)].reshape(-1, 3)
        assert len(behind), f"{word} lies outside"
        assert np.median(contrast(color, behind)) >= 4.5, word
    assert len(words) > 5


def test_many_training_curves_have_a_panel_each_before_that_of_the_reference(tmp_path):
    results = make(tmp_path, 5)
    figure = drawn(training_curves, results)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == 2 * [*(f"Method{i}" for i in range(5)), "Full, 100 %"]
    for axes in figure.axes:
        behind, own = axes.get_lines()
        assert len(set(to_rgb(behind.get_color()))) == 1, "gray"
        assert behind.get_alpha() < 1 <= (own.get_alpha() or 1)
        assert list(behind.get_ydata()) == [1.0, 0.5, 0.2]
    corners = {tuple(np.round(axes.get_window_extent().bounds)) for axes in figure.axes}
    assert len(corners) == len(titles)


def test_all_masks_have_a_panel_where_methods_learn_from_images_without_one_besides(tmp_path):
    bounds = make(tmp_path / "bounds", 2, (0.2, 0.5))
    assert bounds.compared == [0.2, 0.5]
    more = make(tmp_path / "more", 2, (0.2, 1.0))
    assert more.compared == [0.2, 1.0]
    panels = [axes.get_title(loc="left") for axes in drawn(case_dice, more).axes]
    assert panels == ["20 % labelled", "100 % labelled"]


def test_few_training_curves_stand_together(tmp_path):
    figure = drawn(training_curves, make(tmp_path, 3))
    assert [len(axes.get_lines()) for axes in figure.axes] == [4, 4, 1]


SQUARE = np.s_[4:14, 4:14]


def overlaid(root, tissue, predicted, reference=SQUARE):
    """The picture of a single method's prediction on tissue of one color, and pixels per pixel of the image."""
    folder = write_run(root, "m", 0.05, 0, 0.5, classes=["background", "tool"])
    masks = np.zeros((2, 24, 24), np.uint8)
    for mask, where in zip(masks, (reference, predicted), strict=True):
        if where is not None:
            mask[where] = 1
    image = np.broadcast_to(np.array(tissue, np.uint8)[:, None, None], (3, 24, 24))
    np.savez(folder / "examples.npz", ids=["a"], images=image[None], labels=masks[:1], predictions=masks[1:])
    figure = drawn(overlays, read_results(root))
    box = figure.axes[2].get_window_extent()
    picture = pixels(figure)
    rows = np.round(picture.shape[0] - box.y1 + (np.arange(25) * box.height / 24)).astype(int)
    columns = np.round(box.x0 + np.arange(25) * box.width / 24).astype(int)
    return picture, rows, columns


TISSUES = {"black": (0, 0, 0), "white": (255, 255, 255), "gray": (118, 118, 118), "red": (190, 60, 50),
           "yellow": (240, 228, 66)}  # fmt: skip


@pytest.mark.parametrize("tissue", TISSUES.values(), ids=TISSUES)
@pytest.mark.parametrize("which", ["predicted", "reference"])
def test_an_outline_shows_all_around_on_any_tissue(tmp_path, tissue, which):
    shape = {"predicted": None, "reference": None} | {which: SQUARE}
    picture, rows, columns = overlaid(tmp_path, tissue, **shape)
    size = columns[1] - columns[0]
    for i in range(5, 13):
        for row, column in ((i, 4), (i, 14), (4, i), (14, i)):  # along the four edges
            near = picture[rows[row] - size : rows[row] + size, columns[column] - size : columns[column] + size]
            assert contrast(near, np.array(tissue) / 255).max() >= 3, (row, column)


def test_outlines_leave_the_tissue_inside_and_outside_as_it_is(tmp_path):
    picture, rows, columns = overlaid(tmp_path, TISSUES["red"], SQUARE)
    for where in (
        np.s_[rows[6] : rows[12], columns[6] : columns[12]],
        np.s_[rows[17] : rows[24] - 1, columns[1] : columns[23]],
    ):
        assert np.allclose(picture[where], np.array(TISSUES["red"]) / 255, atol=1 / 255)


def test_a_prediction_of_the_whole_image_has_an_outline(tmp_path):
    picture, rows, columns = overlaid(tmp_path, TISSUES["red"], np.s_[:, :], None)
    edge = picture[rows[0] : rows[0] + 3, columns[2] : columns[22]]
    assert contrast(edge, np.array(TISSUES["red"]) / 255).max() >= 3


def test_reference_and_classes_differ_without_their_colors(tmp_path):
    write_run(tmp_path, "m", 0.05, 0, 0.5, classes=["background", "one", "two", "three"])
    figure = drawn(overlays, read_results(tmp_path))
    (legend,) = figure.legends
    tops = [handle for handle in legend.findobj(matplotlib.lines.Line2D) if to_rgba(handle.get_color()) != (0, 0, 0, 1)]
    dashes = [str(handle._dash_pattern) for handle in tops]  # no public name has the pattern
    assert legend.get_texts()[0].get_text() == "reference"
    assert len(tops) == len(set(dashes)) == 4


def test_two_lower_bounds_can_be_told_apart(tmp_path):
    for name in ("plain", "strong"):
        write_run(tmp_path, name, 0.05, 0, 0.5, role="lower")
    style = looks(read_results(tmp_path).entries)
    assert style["plain"].color == style["strong"].color
    assert style["plain"].marker != style["strong"].marker
    assert style["plain"].dash != style["strong"].dash
