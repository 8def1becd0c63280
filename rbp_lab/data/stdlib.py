"""The default corpus: the source code of the running Python's standard library, present on every machine.

Human-written code with English docstrings. Nothing is shipped: the texts differ a little between Python versions, so
the version is in the corpus's info and the texts are in its fingerprint.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sysconfig
import tokenize
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rbp_lab.data.corpus import Corpus, build_corpus, check_name, check_selection
from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError

SPLITS = ("train", "heldout")
HELDOUT_SHARE = 0.1
# Not the standard library; or what a distribution's package may lack (test suites, larger than the library itself);
# or made by programs: encodings is nearly all tables and copies of one wrapper, so held-out files would repeat training
# files, and pydoc_data is one large generated text.
EXCLUDED_DIRECTORIES = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "pydoc_data"}
)
# What the build wrote about this machine: compiler flags and paths.
EXCLUDED_FILES = re.compile(r"_sysconfigdata_.*\.py")
# Tables of character codes spoil the text (a model can only memorise them). The share of a file's characters that
# are numbers or escapes separates them: in html/entities.py, html/__init__.py and stringprep.py it is larger.
MAX_NUMBER_SHARE = 0.2
_NUMBERS = re.compile(r"0[xX][0-9a-fA-F]+|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\d+")


@dataclass(frozen=True)
class StdlibText:
    """Python files of the standard library as documents; ids are paths relative to its directory.

    split: "train" or "heldout" (about a tenth of the files, chosen by a hash of the relative path, so that a file
    keeps its side whatever else is installed). protocol: how its documents are cut when scored. The selection
    fields are those of ``corpus.Selection``.
    """

    name: str = "stdlib"
    split: str = "heldout"
    shuffle_seed: int | None = None
    num_documents: int | None = None
    min_chars: int = 1
    protocol: Windowing = field(default_factory=lambda: Windowing("rolling", max_tokens=128, stride=96))

    def __post_init__(self) -> None:
        check_name(self.name)
        check_selection(self.shuffle_seed, self.num_documents, self.min_chars)
        if self.split not in SPLITS:
            raise LabError(f"dataset.split must be one of {', '.join(SPLITS)}; got {self.split!r}")

    def corpus(self) -> Corpus:
        """The selected documents of the split, in path order unless shuffled.

        Raises:
            LabError: this Python has no standard library as files (a zipped or stripped one), or nothing is left.
        """
        root = Path(sysconfig.get_path("stdlib"))
        paths = sorted(library_files(root))
        if not paths:
            raise LabError(
                f"dataset {self.name!r}: no Python source files of the standard library below {root}; this Python has "
                "it zipped or stripped, so use another Python, or dataset=local with texts of your own"
            )
        texts, ids = [], []
        unreadable = tables = 0
        for path in paths:
            if split_of(path) != self.split:
                continue
            text = read_source(root / path)
            if text is None:
                unreadable += 1
            elif number_share(text) > MAX_NUMBER_SHARE:
                tables += 1
            else:
                texts.append(text)
                ids.append(path)
        return build_corpus(
            self.name,
            texts,
            ids,
            shuffle_seed=self.shuffle_seed,
            num_documents=self.num_documents,
            min_chars=self.min_chars,
            info={
                "source": "standard library of the running Python",
                "python": f"{platform.python_implementation()} {platform.python_version()}",
                "split": self.split,
                "files_in_both_splits": len(paths),
                "unreadable_files": unreadable,
                "table_files_left_out": tables,
            },
        )


def library_files(root: Path) -> list[str]:
    """Relative POSIX paths of the .py files below root that may be documents, by name alone."""
    found = []
    for directory, below, names in os.walk(root):
        below[:] = set(below) - EXCLUDED_DIRECTORIES  # never descends into site-packages, which can be large
        relative = Path(directory).relative_to(root)
        found += [(relative / n).as_posix() for n in names if n.endswith(".py") and not EXCLUDED_FILES.fullmatch(n)]
    return found


def split_of(relative_path: str | PurePosixPath) -> str:
    """The split of a file: "heldout" for a tenth of all paths, by the first 8 bytes of the path's SHA-256."""
    digest = hashlib.sha256(str(relative_path).encode("utf-8", "surrogateescape")).digest()
    return "heldout" if int.from_bytes(digest[:8], "big") / 2**64 < HELDOUT_SHARE else "train"


def read_source(path: Path) -> str | None:
    """The text of a Python file by its declared encoding, newlines as \\n; None when it cannot be read or decoded."""
    try:
        with tokenize.open(path) as stream:
            return stream.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def number_share(text: str) -> float:
    """Share of the characters that belong to numbers and character escapes; 0 for an empty text."""
    return sum(len(match) for match in _NUMBERS.findall(text)) / max(1, len(text))
