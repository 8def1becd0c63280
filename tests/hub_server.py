"""A Hugging Face Hub on the loopback interface, enough of it for transformers and datasets to load from.

    root/models/<owner>/<repo>/…             the main branch of a model repository
    root/models/<owner>/<repo>@<branch>/…    another branch of it
    root/datasets/<owner>/<repo>/…           the same for data sets

The commit of a branch is a hash of its files, so it changes when they do; ``push`` keeps the old commit. Clients set
HF_ENDPOINT to ``server.url`` before they import any hub library, and HF_HUB_DISABLE_XET=1. ``server.log`` holds
(method, path) of every request, ``server.ranges`` (file, header Range) of each for a part of a file, and
``server.before`` is called with each path before it is answered; ``server.one_at_a_time`` may be a lock, for requests
one after another. What goes wrong:

    server.refuse    (status, headers) to answer with
    server.private   the token without which the repository is not there
    server.damage    a function of the content of a file to what is sent for it; its checksum stays
    server.cut       numbers: so many bytes are sent of each answer before the connection ends, until the list is empty
    server.reset     the same, but the connection is reset

Each maps a pattern of paths (as of fnmatch) to that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import struct
import threading
import urllib.parse
from contextlib import nullcontext
from fnmatch import fnmatch
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


def is_large(file: str) -> bool:
    """Whether the hub keeps a file in its large file storage."""
    return file.endswith((".safetensors", ".bin", ".gguf", ".parquet", ".gz", ".zst"))


def checksum(path: Path) -> str:
    """What the hub calls a file: SHA-256 of a large one, git's SHA-1 of another."""
    content = path.read_bytes()
    if is_large(path.name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def push(repo: Path, content: Path) -> None:
    """Replace the main branch by other files; the old commit can still be asked for."""
    repo.rename(repo.parent / f"{repo.name}@{commit_of(repo)}")
    shutil.copytree(content, repo)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the clients keep connections open

    def log_message(self, *args):
        pass

    def do_GET(self):
        with self.server.one_at_a_time:
            self.respond()

    def respond(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.log.append((self.command, path))
        self.server.before(path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        refused, token = (self.planned(faults, path) for faults in (self.server.refuse, self.server.private))
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            refused = 404, {"X-Error-Code": "RepoNotFound"}  # as of one that does not exist
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

    def planned(self, faults: dict, path: str):
        """What a mapping has for the path; None when it has nothing."""
        return next((fault for pattern, fault in faults.items() if fnmatch(path, pattern)), None)

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
        out = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": one} for one in folders if one in wanted]
        for one in (name for name in names if name in wanted):
            size, oid = (repo / one).stat().st_size, checksum(repo / one)
            about = {"type": "file", "oid": oid[:40], "size": size, "path": one}
            out.append(about | ({"lfs": {"oid": oid, "size": size, "pointerSize": 130}} if is_large(one) else {}))
        return out

    def answer_file(self, kind, name, revision, file):
        repo = self.find(kind, name, revision)
        if repo is None:
            return None
        headers = {"X-Repo-Commit": commit_of(repo), "Accept-Ranges": "bytes"}
        if not (repo / file).is_file():
            return self.send({"error": "Entry not found"}, 404, headers | {"X-Error-Code": "EntryNotFound"})
        content = (repo / file).read_bytes()
        headers["ETag"] = f'"{checksum(repo / file)}"'
        if is_large(file):
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if self.command == "GET":
            content = (self.planned(self.server.damage, self.path) or bytes)(content)
        if "Range" in self.headers:
            self.server.ranges.append((file, self.headers["Range"]))
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
        if self.command == "HEAD":
            return
        ends, resets = (self.planned(faults, self.path) for faults in (self.server.cut, self.server.reset))
        if not (cuts := ends or resets):
            self.wfile.write(body)
            return
        self.wfile.write(body[: cuts.pop(0)])
        self.wfile.flush()
        self.close_connection = True
        if cuts is resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)


def serve(root: Path) -> ThreadingHTTPServer:
    """Start serving root on a free port of 127.0.0.1, in a thread; ``url``, ``log``; stop it with ``shutdown()``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.root, server.log, server.before, server.refuse = Path(root), [], lambda path: None, {}
    server.private, server.damage, server.cut, server.reset, server.ranges = {}, {}, {}, {}, []
    server.one_at_a_time = nullcontext()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run_client(script: str, server: ThreadingHTTPServer, home: Path, *arguments: str, offline: bool = False) -> str:
    """Standard output of a Python script run in its own process as a client of the server, with HF_HOME at home."""
    ours = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = kept | ours | ({"HF_HUB_OFFLINE": "1"} if offline else {}) | {"OMP_NUM_THREADS": "1"}
    return forked.output(script, *arguments, environment=environment)
