"""The report: one file without a network, ids and colours that belong to it, points that say their names."""

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from rbp_lab.analysis.csv_points import points_from_csv
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.config.schemas import FitChoices
from rbp_lab.errors import LabError
from rbp_lab.figures.scaling import scaling_figure
from rbp_lab.figures.style import describe_points, new_figure, point_titles
from rbp_lab.fits.points import Label
from rbp_lab.fits.power import fit_power
from rbp_lab.laws import decomposition, lognormal, overview
from rbp_lab.laws.base import Inputs, LawResult
from rbp_lab.laws.registry import LAWS, compute, sections
from rbp_lab.points import points_from_records
from rbp_lab.report.page import page, write_report
from rbp_lab.report.panels import draw_panels
from rbp_lab.report.provenance import provenance
from rbp_lab.report.sections import ReportFigure, ReportTable, Section, file_stem, unique_stems
from rbp_lab.report.svg import colour_rules, inline_svg, lifted, style_rules
from rbp_lab.text import si
from tests.fits_data import GPT2_K1, PYTHIA_K1, fit_points, ladder

KS = [1, 2, 5, 10, 100, 512]


@pytest.fixture(scope="module")
def figure():
    tables = {"GPT2": GPT2_K1, "Pythia": PYTHIA_K1}
    fits = [fit_power(fit_points(t), Label(f, "Wikipedia", "neg_log_rbp", 1)) for f, t in tables.items()]
    return scaling_figure(fits, "title <&>")


@pytest.fixture(scope="module")
def local():
    """What is computed of a small ladder."""
    runs = ladder(7, documents=20, vocab=512)
    points = points_from_records(runs, KS)
    return Inputs(points, fit_all(points, records=runs), runs, choices=FitChoices(every_figure=True))


def all_sections(inputs):
    return sections(LAWS, compute(LAWS, inputs))


@pytest.fixture(scope="module")
def found(local):
    """The section of every law."""
    return all_sections(local)


@pytest.fixture(scope="module")
def html(local, found):
    where = ReportTable("m", provenance(local.points, local.records))
    return page("Title", [*found, Section("p", "P", "", tables=(where,))])


class Checked(HTMLParser):
    """Balanced tags, ids and references of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.refs, self.problems = [], [], set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)
        self._note(attributes)

    def handle_startendtag(self, tag, attributes):
        self._note(attributes)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)

    def _note(self, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "for") and value.startswith("#"):
                self.refs.add(value[1:])
            self.refs |= set(re.findall(r"url\(#([^)]+)\)", value or ""))


def test_svg_is_well_formed_and_its_points_say_their_names(figure):
    svg = inline_svg(figure, "f1", 'alt "text"')
    root = ET.fromstring(svg)
    assert root.get("aria-label") == 'alt "text"' and root.get("role") == "img" and root.get("tabindex") == "0"
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == len(GPT2_K1) + len(PYTHIA_K1)
    assert "pythia-12b, S = 11.3B\n−log RBP_1 = 0.5473" in titles
    first = next(u for u in root.iter("{http://www.w3.org/2000/svg}use") if u.get("class") == "pt")
    assert first[0].text.startswith("gpt2, S = 85.1M\n") and float(first.get("x")) > 0
    assert "title <&>" in "".join(root.itertext())


def test_svg_repeats_and_keeps_to_itself(figure):
    one, again, other = (inline_svg(figure, prefix, "alt") for prefix in ("a", "a", "b"))
    assert one == again
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', one))
    assert referred == ids[0]
    assert "<style" not in one and "<metadata" not in one and "#ffffff" not in one and "DejaVu" not in one


def test_rounding_leaves_numbers_in_text_alone():
    figure = new_figure(3, 2)
    ax = figure.subplots()
    describe_points(ax.plot([1.0], [2.0], "o")[0], ["value 0.123456"])
    ax.set_title("R² 0.98765")
    svg = inline_svg(figure, "x", "alpha 0.123456")
    assert "value 0.123456" in svg and "R² 0.98765" in svg and 'aria-label="alpha 0.123456"' in svg
    assert not re.search(r'[xy]="-?\d+\.\d{3}', svg)


def test_points_that_are_not_drawn_do_not_shift_the_names():
    figure = new_figure(3, 2)
    ax = figure.subplots()
    describe_points(ax.plot([1.0, 2.0, 3.0], [1.0, np.nan, 2.0], "o")[0], ["a", "gap", "b"])
    describe_points(ax.plot([1.0, 2.0], [1.0, 1.0], "s")[0], ["c", "d"])
    assert list(point_titles(figure).values()) == [("a", "b"), ("c", "d")]
    ax.lines[1].set_data([1.0], [1.0])  # one marker, two texts: better none than a wrong one
    svg = inline_svg(figure, "x", "")
    assert re.findall(r"<title>(\w+)</title>", svg) == ["a", "b"]
    with pytest.raises(ValueError, match="1 texts for 3 points"):
        describe_points(ax.lines[0], ["only one"])


def test_lines_that_lie_out_of_view_are_left_without_names():
    figure = new_figure(3, 2)
    ax = figure.subplots()
    for height in range(5, 10):  # matplotlib closes the group of their marks in its own tag
        describe_points(ax.plot([5.0, 6.0], [height, height], "o-")[0], ["away", "away"])
    describe_points(ax.plot([0.5], [0.5], "s")[0], ["there"])
    ax.set(xlim=(0, 1), ylim=(0, 1))
    assert re.findall(r"<title>(\w+)</title>", inline_svg(figure, "x", "")) == ["there"]


def test_colours_follow_the_theme(figure):
    svg = inline_svg(figure, "x", "")
    light, dark = colour_rules(svg)
    assert "--h0072b2:#0072b2;" in light and "--hd55e00" in dark and "#0072b2" not in dark
    assert set(re.findall(r"--h\w+", svg)) == set(re.findall(r"--h\w+", light)) == set(re.findall(r"--h\w+", dark))
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert lifted("#e69f00") == "#e69f00" and lifted("#440154") != "#440154"


def test_page_is_whole_and_alone(html):
    checked = Checked(html)
    assert html.startswith("<!doctype html>")
    assert checked.problems == [] and checked.open == []
    assert len(set(checked.ids)) == len(checked.ids)
    assert checked.refs <= set(checked.ids)
    loads = re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"|@import|url\((?!#)', html)
    assert loads == [] and "fetch(" not in html
    assert html.isprintable() or "\x00" not in html
    assert "nan" not in re.sub(r"<[^>]*>", " ", html.split("<script>")[0]).lower().split()


def test_every_law_of_runs_has_its_section(local, found, html):
    anchors = [s.anchor for s in found]
    assert anchors == [
        "overview", "scaling", "over-k", "against-k", "paired", "emergence", "ranks", "split", "calibration",
        "forecast", "influence", "texts", "questions",
    ]  # fmt: skip
    assert all(f'<section id="{anchor}">' in html and f'href="#{anchor}"' in html for anchor in anchors)
    ce = next(f for f in local.fits if f.label.metric == "ce")
    low, high = ce.intervals["alpha"]
    ends = f'<span class="interval">[{low:.4f}, {high:.4f}]</span>'
    assert f"{ce.params['alpha']:.4f}<br><small>{ends}</small>" in html
    assert "No fit for −log RBP<sub>512</sub> (ladder, stdlib): the value is 0 for every model" in html
    points = local.points[local.points["size"] < 3e5]
    few = overview.section(LawResult(inputs=Inputs(points, fit_all(points), shown=(1, 10))))
    assert few.notes[0].startswith("few_models: fewer than 7 models")
    assert "few_models" in few.tables[0].frame["warnings"][0]


def test_figures_of_one_k_at_a_time_are_drawn_when_asked_for(local, found):
    def choices(sections):
        return {f.name: list(f.by_k) for s in sections for f in s.figures if f.by_k and f.switch == "k"}

    everything = choices(found)
    assert len(everything.pop("each_k")) == 6 and [list(map(int, ks)) for ks in everything.values()] == [[1, 10, 100]]
    few = choices(all_sections(replace(local, choices=FitChoices(), shown=(10,))))
    assert list(few) == list(everything) and list(few.values()) == [["10"]]


def test_every_run_has_its_provenance(local, html):
    points, runs = local.points, local.records
    table = provenance(points, runs)
    assert table["key"].tolist() == [r.key for r in runs] and table["tokens"].tolist() == [2400] * 7
    assert all(r.key in html for r in runs) and runs[0].dataset.fingerprint[:12] in html
    assert len(provenance(points[points["model"] == "ladder-3"], runs)) == 1


def test_the_switch_shows_one_figure_of_several(html):
    block = re.search(r'<figure id="fig-each_k">.*?</figure>', html, re.S).group()
    radios = re.findall(r'<input type="radio" name="each_k" value="(\d+)"( checked)?>', block)
    assert radios == [("1", " checked"), ("2", ""), ("5", ""), ("10", ""), ("100", "")]  # 512 has nothing to draw
    panels = re.findall(r'<div class="plot panel([^"]*)" data-choice="(\d+)">', block)
    assert [choice for _, choice in panels] == ["1", "2", "5", "10", "100"]
    assert ["shown" in classes for classes, _ in panels] == [True, False, False, False, False]
    assert "<legend>k</legend>" in block


def test_published_values_say_what_they_cannot_tell(tmp_path):
    rows = [f"Pythia,{m},{s},Wiki,1,{v}" for m, (s, v) in PYTHIA_K1.items()]
    (tmp_path / "v.csv").write_text("\n".join(["family,model,non_embedding_params,dataset,k,neg_log_rbp", *rows]))
    points = points_from_csv(tmp_path / "v.csv")
    found = all_sections(Inputs(points, fit_all(points)))
    assert [s.anchor for s in found] == ["overview", "scaling", "forecast", "influence", "texts", "ruled-out"]
    ruled = found[-1].tables[0].frame
    why = dict(zip(ruled["law"], ruled["why not"], strict=True))
    assert {"emergence", "lognormal", "exponents from counts"} <= set(why)
    assert "no cross-entropy" in why["cross-entropy against −log RBP"]
    table = provenance(points, source="v.csv")
    assert len(table) == 10 and set(table["source"]) == {"v.csv"}
    assert "ruled-out" in page("t", found)


def test_writing_is_whole_or_nothing_and_repeats(figure, tmp_path, monkeypatch):
    section = Section("a", "A", "lead", (ReportFigure("f", lambda: figure, "cap"),))
    for name in ("one", "two"):
        write_report(tmp_path / f"{name}.html", "T", [section], pd.DataFrame({"key": ["k1"]}))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    monkeypatch.setattr("pathlib.Path.write_text", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "three.html", "T", [section], pd.DataFrame())
    assert {p.name for p in tmp_path.iterdir()} == {"one.html", "two.html"}


def test_tables_print_numbers_dashes_and_escapes():
    frame = pd.DataFrame({
        "name": ["<b>", "x"], "v": [0.12345, float("nan")], "n": pd.array([1234567, None], dtype="Int64"),
        "ok": [True, False], "i": [-1.5, float("inf")],
    })  # fmt: skip
    tables = (ReportTable("T_1", frame, {"v": 3, "i": 1}),)
    html = page("t", [Section("a", "RBP_k and S^−α", "p_{N,k} & so", tables=tables)])
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    assert "<td>&lt;b&gt;</td>" in body and '<td class="n">0.123</td>' in body and '<td class="n">–</td>' in body
    assert "1,234,567" in body and "<td>yes</td>" in body and "−1.5" in body and "∞" in body
    assert "RBP<sub>k</sub> and S<sup>−α</sup>" in html and "p<sub>N,k</sub> &amp; so" in html and "T_1" in html


def test_names_are_unique(figure):
    section = Section("a", "A", "", (ReportFigure("f", lambda: figure, ""), ReportFigure("f", lambda: figure, "")))
    with pytest.raises(ValueError, match="every figure"):
        page("t", [section])
    with pytest.raises(ValueError, match="every anchor"):
        page("t", [Section("a", "A", ""), Section("a", "B", "")])
    with pytest.raises(ValueError, match="either a figure or a switch"):
        ReportFigure("f", None, "")
    assert file_stem("Wiki pedia, GPT-2") == "Wiki-pedia_GPT-2"


def test_figures_are_saved_by_choice(figure, tmp_path):
    several = ReportFigure("s", None, "", {"a b": lambda: figure, "c": lambda: figure})
    panels = draw_panels(several, tmp_path, ("svg",))
    assert [p.name for panel in panels for p in panel.files] == ["s_a-b.svg", "s_c.svg"]
    assert draw_panels(several)[0].files == ()
    assert draw_panels(ReportFigure("t", lambda: figure, "", files=False), tmp_path, ("svg",))[0].files == ()


def test_a_choice_with_nothing_to_show_is_left_out(figure):
    def nothing():
        raise LabError("there is nothing to draw")

    some = ReportFigure("s", None, "", {"a": nothing, "b": lambda: figure})
    none = ReportFigure("n", None, "", {"a": nothing, "b": nothing})
    html = page("t", [Section("a", "A", "", (some, none))])
    assert html.count("<svg ") == 1 and "fieldset" not in html[html.index("<body>") :] and 'id="fig-n"' not in html


def test_the_policy_allows_the_page_its_own_style_and_script_only(html):
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html).group(1)
    allowed = dict(part.strip().split(" ", 1) for part in unescape(policy).split(";"))
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.S)
        assert allowed[source] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    body = html[html.index("<body>") : html.index("<script>")]
    assert body.count("<svg ") == body.count('class="plot ') > 10
    assert not re.search(r"<[^>]*\s(style|on\w+)=", body)
    used = {name for names in re.findall(r'class="([^"]*)"', body) for name in names.split() if re.match(r"s\d", name)}
    assert used == set(re.findall(r"^\.(s\d+)\.s", html, re.M))


def test_style_attributes_become_rules_of_their_own():
    svgs = ['<path d="M0" style="fill: none; "/><use class="pt" style="fill: red"/>', '<path style="fill: none"/>']
    changed, rules = style_rules(svgs)
    assert changed == ['<path class="s0" d="M0"/><use class="s1 pt"/>', '<path class="s0"/>']
    assert rules == ".s0.s0{fill: none}\n.s1.s1{fill: red}\n"


def test_what_all_rows_share_stands_above_the_table():
    frame = pd.DataFrame({"data set": ["d_1"] * 3, "model": list("abc"), "n": [1, 1, 1], "result": ["fitted"] * 3})
    html = page("t", [Section("a", "A", "", tables=(ReportTable("T", frame),))])
    assert "In every row: data set d_1; result fitted." in re.sub("<[^>]*>", "", html)
    assert re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', html) == ["model", "n"]
    few = page("t", [Section("a", "A", "", tables=(ReportTable("T", frame.iloc[:2]),))])
    assert "In every row" not in few and '<td class="name">d_1</td>' in few
    alike = page("t", [Section("a", "A", "", tables=(ReportTable("T", frame[["data set", "result"]]),))])
    assert "In every row" not in alike and alike.count('<td class="name">d_1</td>') == 3


def test_names_are_printed_as_they_are_and_quantities_with_subscripts():
    frame = pd.DataFrame({"model": ["p_1", "RBP_2 ^x"], "law": ["−log RBP_1", "CE"]})
    html = page("t", [Section("a", "A", "", tables=(ReportTable("T", frame),))])
    assert all(f'<td class="name">{name}</td>' in html for name in ("p_1", "RBP_2 ^x"))
    assert "<td>−log RBP<sub>1</sub></td>" in html


def test_stems_differ_where_names_do():
    names = ["wiki a", "wiki-a", "Wiki-A", "plain", "x" * 300, "x" * 299]
    stems = unique_stems(names)
    assert len({stem.casefold() for stem in stems}) == len(names) and max(map(len, stems)) < 100
    assert stems[3] == "plain" and stems == unique_stems(names)


def test_total_parameters_are_s_everywhere(tmp_path):
    """S of tables, figures and provenance is the count that was asked for, not always the non-embedding one."""
    runs = ladder(3, documents=8, vocab=512)
    points = points_from_records(runs, [1, 10], size="total_params")
    inputs = Inputs(points, fit_all(points, size="total_params"), runs, size="total_params")
    total = {float(r.model.params.total) for r in runs}
    found = {law.name: law.compute(inputs) for law in (lognormal, decomposition)}
    assert set(found["lognormal"].tables["lognormal"]["size"].astype(float)) == total
    assert set(found["decomposition"].tables["decomposition"]["size"]) == total
    sizes = {f"S = {si(s)}" for s in total}
    for law, name in ((lognormal, "ranks_stdlib_ladder"), (decomposition, "errors_stdlib_ladder")):
        drawn = next(f for f in law.section(found[law.name]).figures if f.name.replace("-", "_") == name).figure()
        assert {t.get_text() for t in drawn.axes[0].get_legend().get_texts()} == sizes
    assert set(provenance(points, runs, size="total_params")["S"]) == {f"{int(s):,}" for s in total}
