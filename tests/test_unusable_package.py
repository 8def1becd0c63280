"""An optional package that is installed and cannot be used is not passed over in silence."""

import pytest

import rbp_lab.errors
from rbp_lab import scoring


@pytest.fixture
def importing(monkeypatch):
    """Have the import of numba raise an error, with nothing remembered of other imports."""

    def fail_with(error):
        def refuse(name):
            raise error

        monkeypatch.setattr(scoring, "import_module", refuse)
        monkeypatch.setattr(rbp_lab.errors, "_noted", set())
        scoring.missing.cache_clear()

    yield fail_with
    scoring.missing.cache_clear()


def _while_handling(first, error):
    error.__context__ = first
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ImportError("Numba needs NumPy 2.3 or less"), "it is installed and does not work (Numba needs NumPy"),
        (ImportError("x.so: failed to map segment from shared object"), "memory is not enough (x.so: failed"),
        (_while_handling(MemoryError(), OSError("cannot find x.so")), "memory is not enough (cannot find x.so)"),
        (MemoryError(), "memory is not enough (MemoryError)"),
        (ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite"), "does not work (No module named"),
    ],
)
def test_a_package_that_cannot_be_used_is_noted_once(importing, error, why, capsys):
    importing(error)
    assert [scoring.choose("cpu", 64) for _ in range(3)] == ["torch"] * 3
    said = capsys.readouterr().err
    assert why in said and said.count("numba cannot be used") == 1


def test_a_package_that_is_not_installed_is_not_noted(importing, capsys):
    importing(ModuleNotFoundError("No module named 'numba'", name="numba"))
    assert scoring.choose("cpu", 64) == "torch" and not capsys.readouterr().err
