"""A loopback W&B server for tests: the part of the protocol that the real client uses here, and faults on demand.

It proves the real client (init, log, histograms, artifacts, finish, resume, sync, the public API), not the limits, the
permissions or the user interface of the real server. Nothing of the product
knows of this file.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.wandb_graphql import Query, matches

NOW = "2026-01-01T00:00:00Z"
KEY = "0123456789abcdef" * 2 + "01234567"  # 40 characters, as keys are


def gid(*parts: object) -> str:
    """An opaque id, as GraphQL servers give them."""
    return base64.b64encode(":".join(map(str, parts)).encode()).decode()


def connection(nodes: list[dict]) -> dict:
    """A page of nodes; everything always fits on one page."""
    page = {"__typename": "PageInfo", "hasNextPage": False, "endCursor": str(len(nodes)), "hasPreviousPage": False}
    edges = [{"node": node, "cursor": str(i)} for i, node in enumerate(nodes)]
    return {"edges": edges, "totalCount": len(nodes), "pageInfo": page}


class Lab:
    """Runs, artifacts, views and stored files of one entity; ``root`` is the GraphQL root value."""

    def __init__(self, base: str, entity: str = "lab"):
        self.base, self.entity = base, entity
        self.lock = threading.RLock()
        self.runs: dict[tuple[str, str], dict] = {}
        self.artifacts: dict[str, dict] = {}
        self.uses: list[tuple[str, str]] = []  # (run, artifact name)
        self.views: dict[str, dict] = {}
        self.files: dict[str, bytes] = {}  # by path below /storage/
        self.unknown: set[str] = set()
        self.operations: list[str] = []

    def execute(self, body: dict) -> dict:
        query = Query(body, self.unknown)
        with self.lock:
            self.operations.append(query.name)
            return {"data": query.answer(self.root())}

    def root(self) -> dict:
        entity = {"__typename": "Entity", "id": gid("Entity", self.entity), "name": self.entity, "organization": None}
        viewer = {
            "__typename": "User", "id": gid("User", 1), "entity": self.entity, "username": self.entity, "flags": "{}",
            "name": self.entity, "email": "lab@example.com", "admin": False, "teams": connection([]),
            "apiKeys": connection([]), "deletedAt": None,
        }  # fmt: skip
        return {
            "viewer": viewer,
            "serverInfo": {"features": [], "cliVersionInfo": "{}", "latestLocalVersionInfo": None},
            "entity": lambda **_: entity,
            "project": lambda name=None, **_: self.project(name),
            "model": lambda name=None, **_: self.project(name),
            "artifact": lambda id=None, **_: self.artifact_node(self.artifacts.get(id)),
            "view": lambda id=None, **_: self.views.get(id),
            "upsertBucket": self.upsert_run,
            "upsertModel": lambda input: {"model": self.project(input["name"]), "project": self.project(input["name"])},
            "upsertView": self.upsert_view,
            "createRunFiles": self.create_run_files,
            "createArtifact": self.create_artifact,
            "createArtifactFiles": self.create_artifact_files,
            "createArtifactManifest": self.manifest,
            "updateArtifactManifest": self.manifest,
            "commitArtifact": self.commit_artifact,
            "useArtifact": self.use_artifact,
            "updateRunSummary": lambda input: {},
        }

    # runs

    def upsert_run(self, input: dict) -> dict:
        given = {k: v for k, v in input.items() if v is not None}
        by_id = next((r for r in self.runs.values() if r["id"] == given.get("id")), None)
        project = by_id["project"] if by_id else given.get("modelName") or "uncategorized"
        name = by_id["name"] if by_id else given["name"]
        new = (project, name) not in self.runs
        run = self.runs.setdefault(
            (project, name),
            {"id": gid("Run", project, name), "project": project, "name": name, "config": "{}", "state": "running",
             "history": [], "events": [], "output": [], "summary": {}, "tags": [], "displayName": name},
        )  # fmt: skip
        for theirs, ours in {"groupName": "group"}.items():
            given[ours] = given.pop(theirs, run.get(ours))
        for name in ("displayName", "group", "jobType", "tags", "notes", "config", "description", "state"):
            if given.get(name) is not None:
                run[name] = given[name]
        if "summaryMetrics" in given:
            run["summary"] = json.loads(given["summaryMetrics"])
        return {"bucket": self.run_node(run), "inserted": new}

    def run_node(self, run: dict | None) -> dict | None:
        if run is None:
            return None
        project, history = run["project"], run["history"]
        made = [a for a in self.artifacts.values() if a["run"] == run["name"] and a["project"] == project]
        used = [a for a in self.artifacts.values() if (run["name"], a["id"]) in self.uses]
        return {
            "__typename": "Run", "id": run["id"], "internalId": run["id"], "name": run["name"], "projectId": 1,
            "displayName": run["displayName"], "description": run.get("description"), "notes": run.get("notes"),
            "config": run["config"], "state": run["state"], "group": run.get("group"), "groupName": run.get("group"),
            "jobType": run.get("jobType"), "tags": run["tags"], "tagsV2": [], "createdAt": NOW, "heartbeatAt": NOW,
            "updatedAt": NOW, "readOnly": False, "systemMetrics": "{}", "summaryMetrics": json.dumps(run["summary"]),
            "project": self.project_stub(project), "user": {"name": self.entity, "username": self.entity},
            "historyLineCount": len(history), "eventsLineCount": len(run["events"]), "logLineCount": len(run["output"]),
            "historyTail": json.dumps([json.dumps(row) for row in history[-1:]]), "eventsTail": "[]",
            "history": lambda minStep=0, maxStep=None, **_: [
                json.dumps(row) for row in history if (minStep or 0) <= row["_step"] < (maxStep or 1 << 60)
            ],
            "wandbConfig": lambda **_: json.dumps({"t": 1}), "stopped": False, "shouldStop": False, "sweepName": None,
            "sweep": None, "runInfo": None, "fileCount": 0, "commit": None, "files": lambda **_: connection([]),
            "parquetHistory": lambda **_: {"parquetUrls": [], "liveData": []}, "defaultColorIndex": 0,
            "historyKeys": {"keys": {}, "lastStep": history[-1]["_step"] if history else -1, "sets": []},
            "outputArtifacts": lambda **_: connection([self.artifact_node(a) for a in made]),
            "inputArtifacts": lambda **_: connection([self.artifact_node(a) for a in used]),
        }  # fmt: skip

    def project_stub(self, name: str) -> dict:
        entity = {"__typename": "Entity", "id": gid("Entity", self.entity), "name": self.entity}
        return {
            "__typename": "Project", "id": gid("Project", name), "internalId": gid("ProjectInternalId", 1),
            "name": name, "entityName": self.entity, "entity": entity, "createdAt": NOW, "isBenchmark": False,
            "readOnly": False,
        }  # fmt: skip

    def project(self, name: str) -> dict:
        runs = [r for r in self.runs.values() if r["project"] == name]

        def pick(filters: str | None = None, after: str | None = None, **_: Any) -> dict:
            wanted = json.loads(filters or "{}")
            found = [self.run_node(r) for r in runs if matches(self.flat(r), wanted)]
            return connection(found[int(after or 0) :]) | {"totalCount": len(found)}

        def one(name: str | None = None, **_: Any) -> dict | None:
            return self.run_node(next((r for r in runs if r["name"] == name), None))

        def version(wanted: str) -> dict | None:
            collection, _, alias = wanted.partition(":")
            mine = [a for a in self.artifacts.values() if (a["project"], a["name"]) == (name, collection)]
            mine = [a for a in mine if (alias or "latest") in (*a["aliases"], f"v{a['index']}")]
            return mine[-1] if mine else None

        def membership(name: str, **_: Any) -> dict | None:
            artifact = self.artifact_node(version(name))
            return artifact and {
                "__typename": "ArtifactCollectionMembership", "id": gid("Membership", artifact["id"]), "createdAt": NOW,
                "versionIndex": artifact["versionIndex"], "aliases": artifact["aliases"], "artifact": artifact,
                "artifactCollection": artifact["artifactSequence"], "files": artifact["files"],
            }  # fmt: skip

        def views(viewName: str | None = None, **_: Any) -> dict:
            mine = [v for v in self.views.values() if v["project"]["name"] == name]
            return connection([v for v in mine if viewName in (None, v["name"])])

        return self.project_stub(name) | {
            "runs": pick, "runCount": lambda filters=None, **_: pick(filters)["totalCount"], "run": one, "bucket": one,
            "artifact": lambda name, **_: self.artifact_node(version(name)), "sweeps": lambda **_: connection([]),
            "artifactCollectionMembership": membership, "allViews": views,
            "artifactCollection": lambda name, **_: {
                "__typename": "ArtifactSequence", "id": gid("Sequence", name), "name": name,
                "artifactMembership": lambda aliasName, **_: membership(f"{name}:{aliasName}"),
            },
        }  # fmt: skip

    @staticmethod
    def flat(run: dict) -> dict:
        """The document that filters are matched against."""
        try:
            config = {k: v.get("value") for k, v in json.loads(run["config"]).items() if isinstance(v, dict)}
        except ValueError:  # spoiled by a test
            config = {}
        return {
            "config": config, "summary_metrics": run["summary"], "group": run.get("group"), "state": run["state"],
            "displayName": run["displayName"], "display_name": run["displayName"], "name": run["name"],
            "jobType": run.get("jobType"), "job_type": run.get("jobType"), "tags": run["tags"],
        }  # fmt: skip

    def create_run_files(self, input: dict) -> dict:
        project, run = input["projectName"], input["runName"]
        files = [
            {"name": f, "uploadUrl": f"{self.base}/storage/runs/{project}/{run}/{urllib.parse.quote(f)}"}
            for f in input["files"]
        ]
        return {"runID": gid("Run", project, run), "uploadHeaders": [], "files": files}

    def stream(self, project: str, name: str, body: dict) -> dict:
        """What a run logs: rows of history and events at an offset, the summary, and that it is complete."""
        with self.lock:
            run = self.runs[(project, name)]
            for file, chunk in (body.get("files") or {}).items():
                rows, at = chunk["content"], chunk["offset"]
                if file == "wandb-summary.json":
                    run["summary"] = json.loads(rows[-1])
                    continue
                target = {"wandb-history.jsonl": "history", "wandb-events.jsonl": "events"}.get(file, "output")
                new = [json.loads(row) for row in rows] if file.endswith(".jsonl") else rows
                run[target][at : at + len(new)] = new
            if body.get("complete"):
                run["state"] = "finished" if body.get("exitcode") == 0 else "failed"
        return {"exitcode": None, "limits": {}}

    # artifacts

    def create_artifact(self, input: dict) -> dict:
        project, name = input["projectName"], input["artifactCollectionName"]
        same = [a for a in self.artifacts.values() if (a["project"], a["name"]) == (project, name)]
        for artifact in same:
            if artifact["digest"] == input["digest"] and artifact["state"] == "COMMITTED":
                return {"artifact": self.artifact_node(artifact)}
        aliases = [a["alias"] for a in input.get("aliases") or []] or ["latest"]
        for artifact in same:
            artifact["aliases"] = [a for a in artifact["aliases"] if a not in aliases]
        id = gid("Artifact", name, len(self.artifacts))
        self.artifacts[id] = {
            "id": id, "project": project, "name": name, "type": input["artifactTypeName"], "run": input.get("runName"),
            "digest": input["digest"], "metadata": input.get("metadata") or "{}", "state": "PENDING",
            "index": len(same), "aliases": aliases,
        }  # fmt: skip
        return {"artifact": self.artifact_node(self.artifacts[id])}

    def create_artifact_files(self, input: dict) -> dict:
        nodes = []
        for file in input["artifactFiles"]:
            path = self.blob(file["md5"])
            nodes.append(
                {"id": gid("File", file["artifactID"], file["name"]), "name": file["name"], "storagePath": path,
                 "displayName": file["name"], "uploadUrl": f"{self.base}/storage/{path}", "uploadHeaders": [],
                 "uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}
            )  # fmt: skip
        return {"files": connection(nodes)}

    @staticmethod
    def blob(md5: str) -> str:
        return "blobs/" + base64.b64decode(md5).hex()

    def manifest(self, input: dict) -> dict:
        id = input.get("artifactManifestID") or gid("Manifest", input["artifactID"])
        artifact = base64.b64decode(id).decode().partition(":")[2]
        url = f"{self.base}/storage/manifests/{artifact}"
        file = {"id": id, "name": input.get("name"), "displayName": input.get("name")}
        return {"artifactManifest": {"id": id, "file": file | {"uploadUrl": url, "uploadHeaders": []}}}

    def commit_artifact(self, input: dict) -> dict:
        artifact = self.artifacts[input["artifactID"]]
        artifact["state"] = "COMMITTED"
        return {"artifact": self.artifact_node(artifact)}

    def use_artifact(self, input: dict) -> dict:
        artifact = self.artifacts[input["artifactID"]]
        self.uses.append((input["runName"], artifact["id"]))
        return {"artifact": self.artifact_node(artifact)}

    def artifact_node(self, artifact: dict | None) -> dict | None:
        if artifact is None:
            return None
        manifest = self.files.get(f"manifests/{artifact['id']}")
        entries = json.loads(manifest)["contents"] if manifest else {}

        def files(names: list[str] | None = None, **_: Any) -> dict:
            nodes = []
            for name, entry in entries.items():
                if not names or name in names:
                    url = f"{self.base}/storage/{self.blob(entry['digest'])}"
                    nodes.append(
                        {"__typename": "File", "id": gid("File", name), "name": name, "displayName": name, "url": url,
                         "directUrl": url, "sizeBytes": entry.get("size", 0), "mimetype": "application/octet-stream",
                         "digest": entry["digest"], "md5": entry["digest"], "updatedAt": NOW, "storagePath": None}
                    )  # fmt: skip
            return connection(nodes)

        project = self.project_stub(artifact["project"])
        sequence = {
            "__typename": "ArtifactSequence", "id": gid("Sequence", artifact["name"]), "name": artifact["name"],
            "project": project, "latestArtifact": {"id": artifact["id"], "versionIndex": artifact["index"]},
        }  # fmt: skip
        aliases = [
            {"__typename": "ArtifactAlias", "id": gid("Alias", a), "alias": a, "artifactCollection": sequence,
             "collection": sequence, "artifactCollectionName": artifact["name"]}
            for a in artifact["aliases"]
        ]  # fmt: skip
        at = f"{self.base}/storage/manifests/{artifact['id']}"
        return {
            "__typename": "Artifact", "id": artifact["id"], "digest": artifact["digest"], "state": artifact["state"],
            "versionIndex": artifact["index"], "version": f"v{artifact['index']}", "metadata": artifact["metadata"],
            "description": None, "size": sum(e.get("size", 0) for e in entries.values()), "fileCount": len(entries),
            "commitHash": artifact["digest"], "createdAt": NOW, "updatedAt": NOW, "ttlDurationSeconds": -2,
            "ttlIsInherited": True, "aliases": aliases, "tags": [], "historyStep": None,
            "artifactType": {"id": gid("Type", artifact["type"]), "name": artifact["type"]},
            "artifactSequence": sequence, "artifactCollections": connection([sequence]),
            "artifactMemberships": connection([]), "files": files, "filesV2": files,
            "currentManifest": manifest and {"id": gid("Manifest", artifact["id"]),
                                             "file": {"id": artifact["id"], "directUrl": at}},
        }  # fmt: skip

    # workspaces

    def upsert_view(self, input: dict) -> dict:
        known = next((v for v in self.views.values() if v["id"] == input.get("id")), None)
        id = known["id"] if known else gid("View", len(self.views))
        given = {k: v for k, v in input.items() if v is not None and k != "id"}
        project = self.project_stub(given.get("projectName", ""))
        stub = {"__typename": "View", "id": id, "project": project, "user": None, "updatedAt": NOW, "createdAt": NOW}
        view = (known or stub) | {k: v for k, v in given.items() if k != "projectName"}
        self.views[id] = view
        return {"view": view, "inserted": known is None}


# What a fault does to a request: a status to answer with, "drop" to close the connection, seconds to wait first, or
# None to let it pass. Called with the path of every request and the number of requests before it.
Fault = Callable[[str, int], "int | float | str | None"]


class Handler(BaseHTTPRequestHandler):
    """HTTP around a Lab."""

    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: Any) -> None: ...

    def reply(self, body: Any, code: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            data = b""
            while length := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def spoiled(self, path: str) -> bool:
        """Whether the fault has taken the request."""
        with self.server.lab.lock:
            number, self.server.requests = self.server.requests, self.server.requests + 1
        fault = self.server.fault and self.server.fault(path, number)
        if isinstance(fault, float):
            time.sleep(fault)
            return False
        if isinstance(fault, int):
            self.reply({"errors": [{"message": "a fault of the test"}]}, fault)
        elif fault == "drop":
            self.close_connection = True
            self.connection.close()
        return fault is not None

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # the client went away, or the connection was dropped on purpose
            self.close_connection = True

    def do_POST(self) -> None:
        lab, path, body = self.server.lab, urllib.parse.urlsplit(self.path).path, self.body()
        if self.spoiled(path):
            return
        if path == "/graphql":
            try:
                return self.reply(lab.execute(json.loads(body)))
            except Exception as error:  # shown to the test; the client gets what a server would say
                self.server.errors.append(f"{type(error).__name__}: {error}")
                return self.reply({"errors": [{"message": str(error)}]}, 400)
        stream = re.fullmatch(r"/files/(?:[^/]*/)?([^/]+)/([^/]+)/file_stream", path)
        self.reply(lab.stream(stream[1], stream[2], json.loads(body)) if stream else {})  # else telemetry and the like

    def do_PUT(self) -> None:
        path, body = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path), self.body()
        if not self.spoiled(path):
            with self.server.lab.lock:
                self.server.lab.files[path.removeprefix("/storage/")] = body
            self.reply(b"")

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if not self.spoiled(path):
            found = self.server.lab.files.get(path.removeprefix("/storage/"))
            self.reply({"error": path}, 404) if found is None else self.reply(found)

    do_HEAD = do_GET


class WandbServer(ThreadingHTTPServer):
    """The server on a free port of 127.0.0.1; a context manager that runs it in a thread."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, fault: Fault | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lab, self.fault = Lab(self.url), fault
        self.errors: list[str] = []
        self.requests = 0

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def environment(self, directory: Any) -> dict[str, str]:
        """Variables that lead a client here, with all that it writes below ``directory``."""
        places = {f"WANDB_{name}_DIR": f"{directory}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
        return {**places, "WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}
