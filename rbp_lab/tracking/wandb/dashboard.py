"""A saved W&B workspace with the panels of the papers, created once and then updated (package wandb-workspaces)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError, first_line
from rbp_lab.store.atomic import atomic_path
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import Destination, Tracking
from rbp_lab.tracking.wandb.client import public_api

SIZE = "non_embedding_params"
LEGEND = "${config:family} ${run:displayName}"


def save_dashboard(
    where: Destination,
    tracking: Tracking,
    store: str | Path,
    name: str,
    ks: Sequence[int],
    windows: Sequence[int],
    k: int,
    colors: Callable[[Iterable[str]], Mapping[str, str]],
) -> tuple[str, bool]:
    """Address of the workspace ``name`` of the project, and whether it was made anew.

    ks: k of the panels against S. windows, k: N and k of the emergence panels. colors: the colour of each family, in
    which its runs are drawn; runs that come later get theirs with the next call. The store remembers the workspace, so
    the next call changes it in place; one that was deleted is made again. Raises LabError without the package, or
    when W&B refuses.
    """
    try:
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise LabError("the dashboard needs the package wandb-workspaces: pip install 'rbp-lab[dashboard]'") from None
    import wandb

    notes = Store(store).dashboards
    try:
        api = public_api(where.server, where.key, tracking.timeout)
        entity = tracking.entity or api.default_entity
        key = f"{where.server}/{entity}/{tracking.project}/{name}"
        known = _read(notes).get(key)
        workspace = _found(workspaces, known)
        new = workspace is None
        if workspace is None:
            workspace = workspaces.Workspace(entity=entity, project=tracking.project, name=name)
        workspace.sections = sections(ks, windows, k)
        families = {
            run.id: str(run.config["family"])
            for run in api.runs(f"{entity}/{tracking.project}", per_page=100, lazy=False)
            if "family" in run.config
        }
        color = colors(families.values())
        workspace.runset_settings.run_settings |= {
            run: workspaces.RunSettings(color=color[family]) for run, family in families.items()
        }
        workspace.save()
    except (wandb.errors.Error, OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"W&B at {where.server} did not take the dashboard: {first_line(error)}") from error
    with atomic_path(notes) as path:
        path.write_text(json.dumps(_read(notes) | {key: workspace.url}, indent=1) + "\n")
    return workspace.url, new


def _found(workspaces: Any, url: str | None) -> Any:
    if url is None:
        return None
    try:
        return workspaces.Workspace.from_url(url)
    except (ValueError, KeyError, TypeError):  # deleted there
        return None


def _read(notes: Path) -> dict[str, str]:
    try:
        return dict(json.loads(notes.read_text()))
    except (OSError, ValueError):
        return {}


def sections(ks: Sequence[int], windows: Sequence[int], k: int) -> list[Any]:
    """The panels: RBP_k and CE against S, R² and exponents against k, ranks and curves while measuring, emergence."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    def against_size(name: str, title: str, log_y: bool = True) -> Any:
        return panels.ScatterPlot(
            title=title, x=panels.Config(SIZE), y=panels.SummaryMetric(name), log_x=True, log_y=log_y,
            legend_template=LEGEND,
        )  # fmt: skip

    def curve(name: str) -> Any:
        return panels.LinePlot(title=name, x="tokens", y=[name, f"{name}/lower", f"{name}/upper"])

    laws = [against_size(f"neg_log_rbp/{n}", f"−log RBP_{n} against S") for n in ks]
    shares = [against_size(f"rbp/{n}", f"RBP_{n} against S", log_y=False) for n in ks]
    emergence = [against_size(f"p/{n}/{k}", f"{n} tokens in a row within {k}", log_y=False) for n in windows]
    fits = [
        panels.LinePlot(title=title, x="k", metric_regex=f"^{name}/.*", log_x=True)
        for name, title in (("r2", "R² of the law against k"), ("alpha", "Exponent against k"))
    ]
    ranks = [
        panels.MediaBrowser(title="Histogram of ranks", media_keys=["ranks"]),
        *(curve(f"rbp/{n}") for n in ks),
        curve("ce"),
        panels.LinePlot(title="tokens/s", x="tokens", y=["tokens_per_s"]),
        panels.LinePlot(title="ties", x="tokens", y=["ties/rate"]),
    ]
    training = [panels.LinePlot(title=n, x="tokens", y=[n]) for n in ("train/loss", "train/lr")]
    pages = {
        "RBP_k and cross-entropy against model size": [*laws, against_size("ce", "Cross-entropy against S"), *shares],
        "The law against k": fits,
        "Ranks, while measuring": ranks,
        "Emergence": emergence,
        "Training": training,
    }
    return [workspaces.Section(name=title, panels=found, is_open=True) for title, found in pages.items()]
