"""Ours against the papers: reads the published numbers, and compares what the points and runs allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import yaml

from rbp_lab.config.directory import CONF
from rbp_lab.data.windows import Windowing
from rbp_lab.fits.against_k import TABLE1_KS
from rbp_lab.fits.points import POOLED
from rbp_lab.laws import against_k, decomposition, paired
from rbp_lab.laws.base import Inputs, Law, LawResult
from rbp_lab.papers.compare import compare_differences, compare_parts, compare_table1, compare_table2
from rbp_lab.papers.comparison import Comparison, comparisons_to_frame, remarks
from rbp_lab.papers.published import DATASETS, FAMILIES, Claim, Papers, papers_from, published_claims, published_name
from rbp_lab.records import RunRecord
from rbp_lab.report.sections import some

PAPER_LAWS: tuple[Law, ...] = (against_k, paired, decomposition)  # beside the power laws in S
PROTOCOL = Windowing()  # its defaults are those of [RBP] section 4
DOCUMENTS, SEED = 1000, 42


@dataclass(frozen=True, eq=False)
class AgainstPapers:
    """What stands beside the papers, their claims held against their own numbers, and what has to be said about it."""

    comparisons: tuple[Comparison, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What stands out, in sentences: verdicts that are not plain agreement, notes, and the papers' own claims."""
        claims = [f"  {claim.sentence}" for claim in self.claims]
        return [*remarks(self.comparisons), *self.notes, "Claims of [RBP] held against its own table 2:", *claims]

    def to_frame(self) -> pd.DataFrame:
        """One row per comparison."""
        return comparisons_to_frame(self.comparisons)


def read_papers() -> Papers:
    """The published numbers of conf/published."""
    names = ("rbp_table2", "rbp_table1", "ee_r2")
    return papers_from(*(yaml.safe_load((CONF / "published" / f"{n}.yaml").read_text("utf-8")) for n in names))


def against_papers(inputs: Inputs, results: Mapping[str, LawResult]) -> AgainstPapers:
    """Everything published that these results have a counterpart of.

    results: at least those of PAPER_LAWS that the inputs allow; nothing is fitted here. Table 1 of [RBP] needs the 11 k
    of its appendix B, the parts of cross-entropy need runs. Nothing is compared across other models, sizes or protocols
    without saying so.
    """
    points, records = inputs.points, inputs.records
    papers, reasons = read_papers(), other_protocols(records)
    found = [*compare_table2(inputs.fits, papers, reasons)]
    found += compare_differences([(law, gap) for _, law, gap in results[paired.name].pairs], papers, reasons)
    has_grid = set(TABLE1_KS) <= set(inputs.ks)
    if has_grid:
        models = points[["model", "dataset", "family", "size"]].drop_duplicates().sort_values(["dataset", "size"])
        in_k = results[against_k.name].laws
        laws = [in_k[pair] for pair in models[["model", "dataset"]].itertuples(index=False, name=None)]
        found += compare_table1(laws, dict(zip(models["model"], models["family"], strict=True)), papers, reasons)
    if records:
        parts = [part.law for mine in results[decomposition.name].parts.values() for part in mine]
        found += compare_parts(parts, papers, reasons)
    notes = [f"{dataset}: {why}" for dataset, why in reasons.items() if any(c.dataset == dataset for c in found)]
    if not found:
        have = points[["dataset", "family"]].drop_duplicates().sort_values(["dataset", "family"])
        ours = some([f"{family} on {dataset}" for dataset, family in have.itertuples(index=False)])
        notes.append(
            f"the papers have no number for what was analysed ({ours}); they have the data sets {', '.join(DATASETS)} "
            f"and the families {', '.join(f for f in FAMILIES if f not in (POOLED, 'qwen'))}"
        )
    elif not has_grid:
        notes.append(f"[RBP] table 1 (against k) needs k = {', '.join(map(str, TABLE1_KS))}; these points lack some")
    if found and not records:
        notes.append("the parts of cross-entropy ([EE]) can be compared for runs only")
    return AgainstPapers(tuple(found), published_claims(papers), tuple(notes))


def other_protocols(records: Sequence[RunRecord]) -> dict[str, str]:
    """Data set → how its runs differ from the protocol of [RBP] section 4, for data sets of the papers that do."""
    reasons = {}
    for record in records:
        name, theirs = record.dataset.name, asdict(PROTOCOL)
        other = [f"{k} {v}" for k, v in record.scoring.protocol.items() if k in theirs and v != theirs[k]]
        source = record.dataset.source
        if source.get("shuffle_seed", SEED) != SEED or source.get("num_documents", DOCUMENTS) != DOCUMENTS:
            chosen = f"num_documents {source.get('num_documents')}, shuffle_seed {source.get('shuffle_seed')}"
            other.append(f"documents chosen with {chosen}")
        if other and published_name(name, DATASETS):
            reasons[name] = "another protocol than the paper's: " + ", ".join(other)
    return reasons
