"""Where everything lies below a store: the one place that knows its file and directory names.

::

    runs/<key>/          record.json and one parquet file per table
    partial/<key>/       finished shards of a measurement that is not finished
    models/<name>/       models of the ladder that rbp-lab trained
    classifiers/<name>/  classifiers that it trained
    checkpoints/<key>/   what a training that is not finished goes on from
    analysis/<name>/     tables, figures and report of an analysis
    comparisons/<a>-<b>/ page and tables of a comparison of two records
    comparisons/<key>/   comparison.json and parquet tables of a comparison of two models in one pass, and its page
    comparisons/over-<digest>/ the page and tables of two models on several data sets
    comparisons/…_<name>/ the page and tables of any of these, by a name beside others of the same
    cache/               token ids, tokenizers, what models are, records pulled from W&B; safe to delete
    mirrored/            what W&B has of this store
    wandb/               offline W&B runs
    errors/              tracebacks of unexpected errors
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rbp_lab.errors import LabError, WrongUsage
from rbp_lab.store.aside import named, recovered

_KEY = re.compile(r"[0-9a-f]{16}")
_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_COMPARISON = re.compile(r"([0-9a-f]{16})(?:-([0-9a-f]{16}))?(?:_.+)?")
_SHARD = re.compile(r"shard-(\d{6,})\.safetensors")
_STATES = re.compile(r"states-(\d{6,})")
# In the directory of a model or classifier that rbp-lab trained, wherever that is; the weights of a classifier.
TRAINING_FILE, WEIGHTS_FILE = "training.json", "weights.safetensors"
_NAME_BYTES = 200  # file systems allow 255 bytes; temporary names beside it need some


def file_name(name: str, what: str) -> str:
    """``name`` itself when it can name one file or directory; otherwise WrongUsage that begins with ``what``."""
    if (
        not name
        or name.startswith(".")
        or re.search(r"[/\\\x00-\x1f\x7f]", name)
        or len(name.encode("utf-8", "surrogatepass")) > _NAME_BYTES
    ):
        raise WrongUsage(
            f"{what} becomes a file name: it must have 1 to {_NAME_BYTES} bytes, not begin with a dot, and hold no "
            f"slash or control character; got {name[:80]!r}"
        )
    return name


def is_key(text: object) -> bool:
    """Whether ``text`` has the form of a record's key: 16 hexadecimal digits."""
    return isinstance(text, str) and _KEY.fullmatch(text) is not None


def compared(name: str) -> tuple[str, ...]:
    """Whose comparison lies in a directory of that name: one in one pass by its key, or two records by theirs; () for
    another directory."""
    match = _COMPARISON.fullmatch(name)
    return tuple(key for key in match.groups() if key) if match else ()


@dataclass(frozen=True)
class RecordFiles:
    """The files of one finished measurement."""

    directory: Path

    @property
    def key(self) -> str:
        """The name of the directory, which is the record's key in a store."""
        return named(self.directory)

    @property
    def header(self) -> Path:
        return self.directory / "record.json"

    def table(self, name: str) -> Path:
        return self.directory / f"{name}.parquet"


@dataclass(frozen=True)
class PartialFiles:
    """The files of one measurement that is under way, or was broken off."""

    directory: Path

    @property
    def plan(self) -> Path:
        return self.directory / "plan.json"

    @property
    def error(self) -> Path:
        """Why the work broke off."""
        return self.directory / "error.txt"

    def shard(self, index: int) -> Path:
        return self.directory / f"shard-{index:06}.safetensors"

    def states(self, index: int) -> Path:
        """A directory: hidden states of one model for a shard, which wait for the other model of a comparison."""
        return self.directory / f"states-{index:06}"

    def lease(self, name: str | int) -> Path:
        return self.directory / f"{name}.lease"

    def finished(self) -> set[int]:
        """The shards that are there; FileNotFoundError when the directory is not."""
        return self._numbers(_SHARD)

    def waiting(self) -> set[int]:
        """The shards of which hidden states are there; FileNotFoundError when the directory is not."""
        return self._numbers(_STATES)

    def _numbers(self, name: re.Pattern[str]) -> set[int]:
        return {int(match[1]) for match in map(name.fullmatch, os.listdir(self.directory)) if match}

    def leases(self) -> list[Path]:
        """What processes have taken."""
        return sorted(self.directory.glob("*.lease"))


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one training that is under way, or was broken off."""

    directory: Path

    @property
    def lease(self) -> Path:
        """The lease of the process that trains."""
        return self.directory / "training.lease"

    def checkpoint(self, step: int) -> Path:
        return self.directory / f"step-{step:010}.safetensors"

    def checkpoints(self) -> list[Path]:
        """What is there, the newest first."""
        return sorted(self.directory.glob("step-*.safetensors"), reverse=True)

    @staticmethod
    def step(checkpoint: Path) -> int:
        """The step of a checkpoint."""
        return int(checkpoint.stem.removeprefix("step-"))


@dataclass(frozen=True)
class ComparisonFiles:
    """The files of the comparison of two records, and of two models on several data sets."""

    directory: Path

    @property
    def differences(self) -> Path:
        return self.directory / "differences.csv"

    @property
    def documents(self) -> Path:
        return self.directory / "documents.csv"

    @property
    def distances(self) -> Path:
        return self.directory / "distances.csv"

    @property
    def report(self) -> Path:
        return self.directory / "report.html"


@dataclass(frozen=True)
class PairFiles(ComparisonFiles):
    """The files of the comparison of two models in one pass; its page and CSV tables lie beside them."""

    @property
    def header(self) -> Path:
        return self.directory / "comparison.json"

    @property
    def percentiles(self) -> Path:
        return self.directory / "percentiles.csv"

    @property
    def accepted(self) -> Path:
        return self.directory / "accepted.csv"

    def table(self, name: str) -> Path:
        return self.directory / f"{name}.parquet"


@dataclass(frozen=True)
class AnalysisFiles:
    """The files of one analysis, apart from its figures."""

    directory: Path

    @property
    def manifest(self) -> Path:
        return self.directory / "analysis.json"

    @property
    def points(self) -> Path:
        return self.directory / "points.csv"

    @property
    def fits(self) -> Path:
        return self.directory / "fits.csv"

    @property
    def fits_parquet(self) -> Path:
        return self.directory / "fits.parquet"

    @property
    def report(self) -> Path:
        return self.directory / "report.html"

    @property
    def paper_comparison(self) -> Path:
        return self.directory / "paper_comparison.csv"

    def law(self, name: str) -> Path:
        return self.directory / f"law_{file_name(name, 'the name of a law')}.csv"


def check_root(root: str | Path) -> None:
    """WrongUsage when a store cannot be a directory, because it is a file or lies below one."""
    path = Path(root).absolute()
    with suppress(OSError):  # of what cannot be looked at, using it says why
        there = next(d for d in (path, *path.parents) if d.exists())
        if not there.is_dir():
            raise WrongUsage(f"store={root}: {there} is a file, and a store is a directory; name another one")


@dataclass(frozen=True)
class Store:
    """The paths below ``root``. Nothing here reads or creates a file; some methods list.

    What a killed writer had moved aside is put back on the way, or found there where that is not allowed.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def record(self, key: str) -> RecordFiles:
        """Where the record of this key lies, or will lie; LabError when ``key`` is not one."""
        if not is_key(key):
            raise LabError(f"a record's key is 16 hexadecimal digits; got {str(key)[:80]!r}")
        return RecordFiles(recovered(self.root / "runs" / key))

    def records(self) -> list[RecordFiles]:
        """Every finished record, by key."""
        keys = {named(path.parent) for path in (self.root / "runs").glob("*/record.json")}
        return [self.record(key) for key in sorted(filter(is_key, keys))]

    def partial(self, key: str) -> PartialFiles:
        """Where the finished shards of an unfinished measurement lie."""
        return PartialFiles(self.root / "partial" / self.record(key).key)

    def partials(self) -> list[PartialFiles]:
        """Every unfinished measurement, by key."""
        found = (PartialFiles(path.parent) for path in (self.root / "partial").glob("*/plan.json"))
        return sorted((f for f in found if is_key(f.directory.name)), key=lambda f: f.directory.name)

    def trainings(self) -> list[Path]:
        """``training.json`` of every trained model, by name."""
        models = self.root / "models"
        names = {named(path.parent) for path in models.glob(f"*/{TRAINING_FILE}")}
        return [recovered(models / name) / TRAINING_FILE for name in sorted(names) if not name.startswith(".")]

    def classifier(self, name: str) -> Path:
        """Where a trained classifier lies, or will lie."""
        return self.root / "classifiers" / file_name(name, "the name of a classifier")

    def checkpoints(self, training: str) -> Path:
        """Where the checkpoints of a training lie; LabError when ``training`` is not hexadecimal."""
        return self.root / "checkpoints" / _hexadecimal(training)

    def all_checkpoints(self) -> list[CheckpointFiles]:
        """The checkpoints of every unfinished training."""
        found = sorted(path for path in (self.root / "checkpoints").glob("*") if _DIGEST.fullmatch(path.name))
        return list(map(CheckpointFiles, found))

    def analysis(self, name: str) -> AnalysisFiles:
        """Where the analysis ``name`` goes; LabError when that cannot name a directory."""
        return AnalysisFiles(self.root / "analysis" / file_name(name, "the name of an analysis"))

    def comparison(self, a: str, b: str, name: str | None = None) -> ComparisonFiles:
        """Where the comparison of two records goes. name: of one beside that, None for none."""
        return ComparisonFiles(self._comparison(f"{self.record(a).key}-{self.record(b).key}", name))

    def over(self, digest: str, name: str | None = None) -> ComparisonFiles:
        """Where the comparisons of two models on several data sets go, by 16 hexadecimal digits."""
        return ComparisonFiles(self._comparison(f"over-{self.record(digest).key}", name))

    def pair(self, key: str, name: str | None = None) -> PairFiles:
        """Where the comparison of two models in one pass lies, or will lie; LabError when ``key`` is not one.

        name: of a page and tables beside it.
        """
        return PairFiles(recovered(self._comparison(self.record(key).key, name)))

    def _comparison(self, of: str, name: str | None) -> Path:
        return self.comparisons_directory / (f"{of}_{file_name(name, 'the name of a comparison')}" if name else of)

    def pairs(self) -> list[PairFiles]:
        """Every finished comparison in one pass, by key."""
        keys = {named(path.parent) for path in self.comparisons_directory.glob("*/comparison.json")}
        return [self.pair(key) for key in sorted(filter(is_key, keys))]

    @property
    def comparisons_directory(self) -> Path:
        """Where comparisons lie."""
        return self.root / "comparisons"

    def comparisons(self) -> list[Path]:
        """The directory of every comparison, of records or in one pass, that has tables."""
        found = sorted(path.parent for path in self.comparisons_directory.glob("*/differences.csv"))
        return [directory for directory in found if compared(directory.name)]

    def analyses(self) -> list[AnalysisFiles]:
        """Every finished analysis, by name."""
        found = [AnalysisFiles(path.parent) for path in sorted((self.root / "analysis").glob("*/analysis.json"))]
        return [f for f in found if not f.directory.name.startswith(".")]

    def tokens(self, digest: str) -> Path:
        """The directory of cached token ids."""
        return self.root / "cache" / "tokens" / _hexadecimal(digest)

    def tokenizer(self, digest: str) -> Path:
        """A cached tokenizer's directory."""
        return self.root / "cache" / "tokenizers" / _hexadecimal(digest)

    def pulled(self, digest: str) -> Path:
        """The directory of a record that W&B holds; LabError when ``digest`` is not hexadecimal."""
        return self.root / "cache" / "wandb" / _hexadecimal(digest)

    @property
    def offline_runs(self) -> Path:
        """Where W&B writes offline runs when it is given the store's root."""
        return self.root / "wandb"

    def mirrored(self, run_id: str) -> Path:
        """What is known of one W&B run's state."""
        return self.root / "mirrored" / f"{file_name(run_id, 'the id of a W&B run')}.json"

    @property
    def dashboards(self) -> Path:
        """The W&B workspaces made from this store."""
        return self.root / "mirrored" / "dashboards.json"

    @property
    def errors(self) -> Path:
        """Where tracebacks of unexpected errors go."""
        return self.root / "errors"


def _hexadecimal(digest: str) -> str:
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise LabError(f"a digest is 16 to 64 hexadecimal digits; got {str(digest)[:80]!r}")
    return digest
