"""What imports what: the contracts of pyproject.toml, and that numbers need no framework."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_import_contracts(tmp_path):
    """import-linter's layers and forbidden imports hold."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("rbp_lab", "torch numpy hydra wandb transformers accelerate datasets matplotlib"),
        (
            "rbp_lab.stats, rbp_lab.metrics, rbp_lab.records, rbp_lab.data.windows",
            "torch hydra wandb pandas matplotlib",
        ),
        ("rbp_lab.fits.power, rbp_lab.points, rbp_lab.store.records", "torch hydra wandb transformers matplotlib"),
        ("rbp_lab.figures.scaling, rbp_lab.commands.analyze", "torch hydra wandb transformers matplotlib.pyplot"),
        ("rbp_lab.models, rbp_lab.data, rbp_lab.cli", "torch transformers datasets wandb matplotlib"),
        ("rbp_lab.models.scorer, rbp_lab.measurement.loop", "hydra omegaconf wandb accelerate matplotlib"),
    ],
)
def test_what_an_import_does_not_bring(modules, without):
    code = f"import sys, {modules}; print(*sorted(set({without.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def longer(most, *patterns):
    """Files of more than so many lines, with their lines."""
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > most}


def test_files_stay_readable():
    assert longer(450, "rbp_lab/**/*.py", "tests/**/*.py") == {}


def test_a_command_only_reads_its_request_and_gives_the_work_away():
    """At most 60 lines, for what it takes is said in a request and what it does lives elsewhere."""
    assert longer(60, "rbp_lab/commands/*.py") == {}
