"""A local server with the part of the Hub's protocol that its client and `datasets` use for data sets.

Files with the suffixes of `LARGE` are stored as large files (known by SHA-256), the others as git blobs, as on the Hub.
What goes wrong on the way can be planned: `cut`, `flip`, `refuse`.
"""

import base64
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".parquet", ".safetensors", ".png")


class RefusalError(Exception):
    """An error response: its status, and the code that the client expects."""


@dataclass
class Repository:
    """A repository: contents by path for each commit, the commits of branches, and the answer to users who may not read."""

    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    closed: tuple = ()

    def commit(self, branch, files):
        """Make a commit, and return it."""
        name = sha1(json.dumps([len(self.commits), {k: git_hash(v) for k, v in files.items()}]).encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def find(self, revision):
        """Return a commit and its files."""
        name = self.branches.get(revision, revision)
        if name not in self.commits:
            raise RefusalError(404, "RevisionNotFound")
        return name, self.commits[name]


class Hub(ThreadingHTTPServer):
    """Attributes: repositories, the token that may write, the requests it had, and the faults that are planned.

    `log` has method, path, the range asked for and the bytes sent. Of the files named in `cut`, as many bytes are sent,
    once; of those in `flip` one bit is changed; for those in `refuse` the connection is closed.
    """

    daemon_threads = True

    def __init__(self, token="writer"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.repositories, self.objects = token, {}, {}
        self.log, self.cut, self.flip, self.refuse = [], {}, set(), set()

    @property
    def url(self):
        """Address of the server, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    def got(self, name):
        """Return the ranges and sizes of the downloads of a file."""
        return [(range_, sent) for method, path, range_, sent in self.log if method == "GET" and path.endswith(name)]


@contextmanager
def serve():
    """Run a hub in a thread."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def git_hash(content):
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


def describe(path, content):
    """Return a file's entry in a listing."""
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Print nothing."""

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            for method, pattern, action in ROUTES:
                if self.command in method and (match := re.fullmatch(pattern, path)):
                    return action(self, body, **match.groupdict())
            raise RefusalError(404, "EntryNotFound")
        except RefusalError as refusal:
            status, code = refusal.args
            return self.send(b"", status, {"X-Error-Code": code})

    def send(self, content, status=200, headers=(), sent=None):
        self.server.log.append((self.command, unquote(self.path), self.headers.get("Range"), len(content[:sent])))
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])
        self.close_connection = sent is not None

    def json(self, value, status=200):
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    @property
    def trusted(self):
        return self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def repository(self, name, *, write=False, content=False):
        """Return a repository if the user may see it; everyone may see the listing of a gated one."""
        found = self.server.repositories.get(name)
        if found is None:
            raise RefusalError(404, "RepoNotFound")
        if found.closed and not self.trusted and (content or "GatedRepo" not in found.closed):
            raise RefusalError(*found.closed)
        if write and not self.trusted:
            raise RefusalError(403, "Forbidden")
        return found

    def info(self, body, name, revision="main"):
        commit, files = self.repository(name).find(revision)
        self.json({"id": name, "sha": commit, "tags": [], "siblings": [{"rfilename": path} for path in files]})

    def tree(self, body, name, revision, folder):
        files, prefix = self.repository(name).find(revision)[1], folder and f"{folder}/"
        deep = "recursive=true" in self.path.lower()
        inside = [path for path in files if path.startswith(prefix) and (deep or "/" not in path[len(prefix) :])]
        self.json([describe(path, files[path]) for path in inside])

    def resolve(self, body, name, revision, file):
        commit, files = self.repository(name, content=True).find(revision)
        if file not in files:
            raise RefusalError(404, "EntryNotFound")
        if file in self.server.refuse and self.command == "GET":
            self.close_connection = True
            return
        content, entry, status = files[file], describe(file, files[file]), 200
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(content))}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            begin, end = int(asked[1]), int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
            content, status = content[begin : end + 1], 206
        if file in self.server.flip:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send(content, status, headers, self.server.cut.pop(file, None) if self.command == "GET" else None)

    def create(self, body):
        asked, repositories = json.loads(body), self.server.repositories
        name = f"{asked['organization']}/{asked['name']}"
        if not self.trusted:
            raise RefusalError(403, "Forbidden")
        there = name in repositories
        if not there:
            repositories[name] = Repository(closed=(404, "RepoNotFound") * (asked["visibility"] == "private"))
            repositories[name].commit("main", {".gitattributes": b""})
        self.json({"url": f"{self.server.url}/datasets/{name}"}, 409 if there else 200)

    def branch(self, body, name, branch):
        branches = self.repository(name, write=True).branches
        status = 409 if branch in branches else 200
        branches.setdefault(branch, branches["main"])
        self.json({}, status)

    def preupload(self, body, name, revision):
        files = self.repository(name, write=True).find(revision)[1]
        answers = []
        for path in (each["path"] for each in json.loads(body)["files"]):
            there = describe(path, files[path]) if path in files else {"oid": None}
            mode = "lfs" if path.endswith(LARGE) else "regular"
            oid = there.get("lfs", there)["oid"]
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.json({"files": answers})

    def batch(self, body, name):
        self.repository(name, write=True)
        objects = json.loads(body)["objects"]
        for each in objects:
            if each["oid"] not in self.server.objects:
                each["actions"] = {"upload": {"href": f"{self.server.url}/objects/{each['oid']}"}}
        self.json({"transfer": "basic", "objects": objects})

    def store(self, body, oid):
        if sha256(body).hexdigest() != oid:
            raise RefusalError(422, "Unprocessable")
        self.server.objects[oid] = body
        self.send(b"")

    def commit(self, body, name, revision):
        repository = self.repository(name, write=True)
        files = dict(repository.find(revision)[1])
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        made = repository.commit(revision, files)
        self.json({"commitUrl": f"{self.server.url}/datasets/{name}/commit/{made}", "commitOid": made})


DATASET = r"/api/datasets/(?P<name>[^/]+/[^/]+)"
ROUTES = (
    ("GET", DATASET, Handler.info),
    ("GET", DATASET + r"/revision/(?P<revision>.+)", Handler.info),
    ("GET", DATASET + r"/tree/(?P<revision>[^/]+)/?(?P<folder>.*)", Handler.tree),
    ("POST", DATASET + r"/branch/(?P<branch>.+)", Handler.branch),
    ("POST", DATASET + r"/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", DATASET + r"/commit/(?P<revision>.+)", Handler.commit),
    ("GET HEAD", r"/datasets/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", Handler.resolve),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", lambda handler, body: handler.json({})),
    ("POST", r"/datasets/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/objects/(?P<oid>\w+)", Handler.store),
)
for method in ("GET", "HEAD", "POST", "PUT"):
    setattr(Handler, f"do_{method}", Handler.answer)
