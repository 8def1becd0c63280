"""A Hugging Face Hub on the loopback interface, enough of it for transformers and datasets to load from.

    root/models/<owner>/<repo>/…             the main branch of a model repository
    root/models/<owner>/<repo>@<branch>/…    another branch of it
    root/datasets/<owner>/<repo>/…           the same for data sets

The commit of a branch is a hash of its files, so it changes when they do; ``push`` keeps the old commit. Clients set
HF_ENDPOINT to ``server.url`` before they import any hub library, and HF_HUB_DISABLE_XET=1. ``server.log`` holds
(method, path) of every request, ``server.before`` is called with each path before it is answered, and
``server.refuse`` maps the beginning of a path to (status, headers) to answer with.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests import forked

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
_REFS = re.compile(r"/api/models/([^/]+/[^/]+)/refs")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def files_of(repo: Path) -> list[str]:
    return sorted(path.relative_to(repo).as_posix() for path in repo.rglob("*") if path.is_file())


def commit_of(repo: Path) -> str:
    digest = hashlib.sha1()
    for name in files_of(repo):
        digest.update(name.encode() + (repo / name).read_bytes())
    return digest.hexdigest()


def push(repo: Path, content: Path) -> None:
    """Replace the main branch by other files; the old commit can still be asked for."""
    repo.rename(repo.parent / f"{repo.name}@{commit_of(repo)}")
    shutil.copytree(content, repo)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the clients keep connections open

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.log.append((self.command, path))
        self.server.before(path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        refused = next((answer for start, answer in self.server.refuse.items() if path.startswith(start)), None)
        if refused is not None:
            self.send({"error": "refused"}, *refused)
        elif match := _REFS.fullmatch(path):
            self.answer_refs(match[1])
        elif match := _API.fullmatch(path):
            self.answer_api(*match.groups(), body)
        elif match := _FILE.fullmatch(path):
            self.answer_file("datasets" if match[1] else "models", match[2], match[3], match[4])
        else:
            self.send({"error": "not found"}, 404)

    do_HEAD = do_POST = do_GET

    def find(self, kind: str, name: str, revision: str) -> Path | None:
        """The folder of a revision (branch or commit); answers 404 itself when there is none."""
        main = self.server.root / kind / name
        if not main.is_dir():
            return self.send({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        branches = [main, *main.parent.glob(f"{main.name}@*")]
        for branch in branches:
            if revision in (branch.name.partition("@")[2] or "main", commit_of(branch)):
                return branch
        return self.send({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})

    def answer_refs(self, name):
        main = self.find("models", name, "main")
        if main is None:
            return None
        repos = {"main": main} | {repo.name.partition("@")[2]: repo for repo in main.parent.glob(f"{main.name}@*")}
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit_of(repo)}
            for branch, repo in sorted(repos.items())
        ]
        return self.send({"branches": branches, "converts": [], "tags": [], "pullRequests": []})

    def answer_api(self, kind, name, what, revision, below, body):
        repo = self.find(kind, name, revision or "main")
        if repo is None:
            return None
        if what in ("tree", "paths-info"):
            return self.send(self.listing(repo, what, (below or "").strip("/"), body))
        siblings = [{"rfilename": file, "size": (repo / file).stat().st_size} for file in files_of(repo)]
        about = {"_id": "1", "id": name, "modelId": name, "sha": commit_of(repo), "siblings": siblings, "tags": []}
        return self.send(about | {"private": False, "gated": False, "disabled": False, "cardData": {}})

    def listing(self, repo: Path, what: str, below: str, body: bytes) -> list[dict]:
        names = files_of(repo)
        folders = sorted({parent.as_posix() for name in names for parent in Path(name).parents} - {"."})
        if what == "paths-info":
            wanted = set(
                json.loads(body)["paths"] if body[:1] == b"{" else urllib.parse.parse_qs(body.decode())["paths"]
            )
        else:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            inside = [one for one in names + folders if not below or one.startswith(below + "/")]
            wanted = {one for one in inside if deep or "/" not in one[len(below) :].lstrip("/")}
        oid = {name: hashlib.sha1((repo / name).read_bytes()).hexdigest() for name in names if name in wanted}
        return [{"type": "directory", "oid": "0" * 40, "size": 0, "path": one} for one in folders if one in wanted] + [
            {"type": "file", "oid": oid[one], "size": (repo / one).stat().st_size, "path": one} for one in oid
        ]

    def answer_file(self, kind, name, revision, file):
        repo = self.find(kind, name, revision)
        if repo is None:
            return None
        headers = {"X-Repo-Commit": commit_of(repo), "Accept-Ranges": "bytes"}
        if not (repo / file).is_file():
            return self.send({"error": "Entry not found"}, 404, headers | {"X-Error-Code": "EntryNotFound"})
        content = (repo / file).read_bytes()
        headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(part[1]), min(int(part[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self.send(content[first : last + 1], 206, headers)
        return self.send(content, 200, headers)

    def send(self, body, code=200, headers=()):
        plain = isinstance(body, bytes)
        body = body if plain else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/octet-stream" if plain else "application/json")
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve(root: Path) -> ThreadingHTTPServer:
    """Start serving root on a free port of 127.0.0.1, in a thread; ``url``, ``log``; stop it with ``shutdown()``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.root, server.log, server.before, server.refuse = Path(root), [], lambda path: None, {}
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run_client(script: str, server: ThreadingHTTPServer, home: Path, *arguments: str, offline: bool = False) -> str:
    """Standard output of a Python script run in its own process as a client of the server, with HF_HOME at home."""
    ours = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = kept | ours | ({"HF_HUB_OFFLINE": "1"} if offline else {}) | {"OMP_NUM_THREADS": "1"}
    return forked.output(script, *arguments, environment=environment)
