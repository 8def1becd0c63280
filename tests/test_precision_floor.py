"""What precision costs, with what comparisons in one pass of the same runs add: moved ranks, KL and the noise floor."""

import numpy as np
import pytest

from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.comparison.differences import compare
from rbp_lab.comparison.findings import paired
from rbp_lab.comparison.record import PairHeader, PairRecord, write_pair
from rbp_lab.comparison.sums import TokenPairs, pair_sums
from rbp_lab.config.schemas import KSpec
from rbp_lab.figures.precision import precision_figure
from rbp_lab.figures.style import point_titles
from rbp_lab.laws import precision
from rbp_lab.laws.base import Inputs
from rbp_lab.store.layout import Store
from rbp_lab.store.records import write_record
from tests.test_dimensions import run

KS = (1, 10, 100)


def sums_of(apart, seed):
    """Two models whose tokens differ by so much."""
    rng, n = np.random.default_rng(seed), 2000
    rank = rng.geometric(0.02, n)
    moved = np.maximum(1, np.rint(rank * np.exp(apart * rng.normal(0, 1, n)))).astype(int)
    nll = rng.gamma(2, 1, n)
    some = rng.random(n).astype(np.float32)
    return pair_sums(TokenPairs(
        document=rng.integers(0, 9, n), nll=(nll.astype(np.float32), (nll * np.exp(apart)).astype(np.float32)),
        entropy=(some, some), rank=(rank, moved), confidence=(some, some),
        kl=(np.full(n, apart, np.float32), np.full(n, 2 * apart, np.float32)), variation=some * np.float32(apart),
        agree=np.ones(n, int), overlap=np.ones((n, 3), int),
    ), KS)  # fmt: skip


@pytest.fixture
def runs():
    return [run("a", i, seed=i) for i in range(3)] + [run("a", i, seed=i + 9, dtype="bfloat16") for i in range(3)]


@pytest.fixture
def store(tmp_path, runs):
    """The first model compared with itself in bf16, the second the other way around; the first with its floors."""
    for record in runs:
        write_record(tmp_path, record)
    names = {i: f"d{i}" for i in range(9)}
    for a, b, perturbation, apart in ((0, 3, None, 0.1), (4, 1, None, 0.2), (0, 0, "noise", 0.01), (0, 0, "batch", 0)):
        header = PairHeader(runs[a].header, runs[b].header, KS, perturbation)
        write_pair(tmp_path, PairRecord(header, sums_of(apart, a + b), names))
    return tmp_path


def law(store):
    found = gather(Selection(str(store), KSpec([1, 10, 100])))
    return precision.compute(Inputs(found.points, fit_all(found.points), found.records, compared=found.compared))


def test_comparisons_of_the_same_runs_add_what_records_cannot_tell(store):
    table = law(store).tables["precision"].set_index(["model", "quantity"])
    first, second, third = (table.xs(f"a-{i}, bfloat16") for i in range(3))
    for rows, sums, kl in ((first, sums_of(0.1, 3), 0.1), (second, sums_of(0.2, 5), 0.4)):  # KL(finest ‖ coarser)
        assert rows["moved"].to_numpy() == pytest.approx(sums.column("moved").sum() / 2000)
        assert rows["kl"].to_numpy() == pytest.approx(kl, rel=1e-5)
    noise = {d.name: max(-d.low, d.high) for d in compare(paired(sums_of(0.01, 0)))}  # more than that of another batch
    assert first["floor"].to_dict() == pytest.approx({"CE": noise["cross-entropy"]} | {
        f"RBP_{k}": noise[f"RBP_{k}"] for k in KS
    })  # fmt: skip
    assert first["kl_floor"].to_numpy() == pytest.approx(0.01, rel=1e-4) and (first["moved_floor"] > 0).all()
    assert second[["floor", "kl_floor"]].isna().all(None) and third[["floor", "moved", "kl"]].isna().all(None)


def test_the_page_shows_the_floor_and_says_how_to_know_the_others(store):
    result = law(store)
    section = precision.section(result)
    (table,) = section.tables
    assert table.frame["floor"].notna().sum() == 4 and table.frame["ranks moved"].notna().sum() == 8
    assert "±\u00a0" in table.frame["floor"].iloc[0] and "floor" in table.frame["KL"].iloc[0]
    assert "of 1 runs differ by more in cross-entropy" in section.lead and section.notes == (precision.ASK,)
    figure = precision_figure(result.tables["precision"], "T")
    texts = [t for titles in point_titles(figure).values() for t in titles if "ranks moved" in t]
    assert len(texts) == 3 and sum("at least" in t for t in texts) == 1
    bars = [c.get_segments() for c in figure.axes[0].collections if c.get_alpha() == 0.45]
    ends = [two[:, 1] for some in bars for two in some if np.ndim(two) == 2 and np.isfinite(two).all()]
    floor = result.tables["precision"].query("quantity == 'CE'")["floor"].max()
    np.testing.assert_allclose(ends, [[-floor, floor]])


def test_a_damaged_comparison_costs_only_what_it_adds(store):
    for files in Store(store).pairs():
        files.table("cells").write_bytes(b"damaged")
    result = law(store)
    table = result.tables["precision"]
    assert len(result.lacks) == 4 and table[["floor", "moved", "kl"]].isna().all(None) and len(table) == 3 * 4
    section = precision.section(result)
    assert "floor" not in section.tables[0].frame and sum("is left out" in n for n in section.notes) == 4
