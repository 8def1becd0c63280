"""The dashboard: the real wandb-workspaces against the loopback server, in a process of its own as users run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wandb_server import WandbServer

pytest.importorskip("wandb_workspaces")
ROOT = Path(__file__).resolve().parent.parent


def dashboard(tmp_path, server, *overrides):
    import os

    environment = {**os.environ, **server.environment(tmp_path / "places"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "rbp_lab", "dashboard", *overrides], cwd=tmp_path, env=environment, text=True,
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip


def test_the_dashboard_is_created_once_and_then_updated(tmp_path):
    with WandbServer() as server:
        for name, family in (("measure-0", "opt"), ("measure-1", "gpt2"), ("measure-2", "opt")):
            config = json.dumps({"family": {"value": family}})
            server.lab.upsert_run({"name": name, "modelName": "rbp-lab", "config": config})
        first = dashboard(tmp_path, server)
        assert first.returncode == 0, first.stderr
        assert first.stdout.startswith("dashboard created: http")
        second = dashboard(tmp_path, server, "panels.ks=[1,5]")
        assert second.stdout.startswith("dashboard updated: http"), second.stdout + second.stderr
        (view,) = server.lab.views.values()
        assert server.errors == []
    assert view["displayName"] == "rank-based scaling"
    colors = json.loads(view["spec"])["section"]["customRunColors"]
    assert colors["measure-0"] == colors["measure-2"] == "#D55E00" and colors["measure-1"] == "#0072B2"
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    titles = {s["name"]: len(s["panels"]) for s in sections}
    assert {"The law against k", "Emergence", "Ranks, while measuring"} <= set(titles)
    text = json.dumps(sections)
    assert "non_embedding_params" in text and "neg_log_rbp/5" in text and "neg_log_rbp/100" not in text
    assert "^r2/" in text and "p/10/10" in text
