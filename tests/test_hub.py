import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest

from rtdetrv2_cli import download, hub
from rtdetrv2_cli.download import _Redirections
from rtdetrv2_cli.errors import DownloadError, ModelNotFoundError

BODY = bytes(range(256)) * 20_000  # 5 MB: more than one chunk
COMMIT = "1" * 40


@dataclass
class Web:
    """A server's state: what it holds, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """Each answer breaks off after the next number of bytes, as long as there is one."""
    refusals: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, Range, Authorization."""
    versioned: bool = True


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def log_message(self, *args):
        pass

    @property
    def web(self) -> Web:
        return self.server.web

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        wanted = self.headers.get("Range")
        self.web.requests.append((path, wanted, self.headers.get("Authorization")))
        if self.web.refusals:
            self.send_error(self.web.refusals.pop(0))
        elif path in self.web.redirects:
            self.send_response(302)
            self.send_header("Location", self.web.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path not in self.web.files:
            self.send_error(404)
        else:
            self.send(self.web.files[path], wanted, body)

    def send(self, content: bytes, wanted: str | None, body: bool):
        version = f'"{hashlib.sha256(content).hexdigest()}"'
        start = 0
        if wanted and self.headers.get("If-Range") in (None, version):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.web.versioned:
            self.send_header("ETag", version)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            cut = self.web.cuts.pop(0) if self.web.cuts else None
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])
            self.close_connection = cut is not None


@pytest.fixture
def web() -> Iterator[Web]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    server.web = Web(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.web
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RTDETRV2_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_BACK_OFF_SECONDS", 0)
    return tmp_path / "cache"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


class TestNames:
    @pytest.mark.parametrize(
        ("name", "canonical"),
        [
            ("r50vd", "r50vd"),
            ("l", "r50vd"),
            ("L", "r50vd"),
            ("rtdetrv2_s", "r18vd"),
            ("RTDETRv2-R50vd-M", "r50vd_m"),
            ("rtdetrv2_r50vd_m_dsp_3x_coco", "r50vd_m_dsp"),
            ("m_r34", "r34vd"),
            ("m-r50", "r50vd_m"),
            ("roadusers", "roadusers"),
            ("r19vd", None),
            ("", None),
        ],
    )
    def test_prefix_case_and_hyphens_do_not_matter(self, name, canonical):
        assert hub.canonical_name(name) == canonical

    def test_every_name_and_alias_is_unique(self):
        entries = hub.registry().values()
        names = [name for entry in entries for name in (entry.name, *entry.aliases)]
        assert len({hub._normal(name) for name in names}) == len(names)

    def test_every_published_variant_is_registered_with_its_parameters(self):
        from rtdetrv2_cli.model.config import PRESETS

        variants = {entry.variant or name for name, entry in hub.registry().items()}
        assert variants - {"roadusers"} == set(PRESETS)
        assert hub.registry()["r50vd"].params == 42_891_372
        assert hub.registry()["r34vd_dsp"].url.endswith("/v0.1/rrtdetrv2_r34vd_dsp_1x_coco.pth")
        assert all(e.license == "Apache-2.0" for e in hub.registry().values())

    def test_an_unknown_name_suggests_the_nearest(self):
        assert hub.nearest("r50")[0] == "r50vd"
        with pytest.raises(ModelNotFoundError, match=r"'r50vdm'.*did you mean r50vd"):
            hub.resolve("r50vdm")

    def test_a_missing_file_is_not_mistaken_for_a_name(self):
        with pytest.raises(ModelNotFoundError, match=r"no file or folder weights/none\.pth"):
            hub.resolve("weights/none.pth")
        with pytest.raises(ModelNotFoundError, match="hf://someone/model"):
            hub.resolve("someone/model")

    def test_an_address_of_another_kind_is_refused_without_its_secret(self):
        with pytest.raises(ModelNotFoundError, match=r"ftp://host/m\.pth") as caught:
            hub.resolve("ftp://user:secret@host/m.pth")
        assert "secret" not in str(caught.value)


class TestSearchOrder:
    def test_a_path_comes_first_then_the_package_then_the_cache(self, tmp_path, cache, monkeypatch):
        monkeypatch.chdir(tmp_path)
        package = tmp_path / "package"
        monkeypatch.setattr(hub, "weights_folder", lambda: package)
        assert hub.find("r50vd") is None
        official = cache / "rtdetrv2_r50vd_6x_coco_ema.pth"
        bundled, embedded = (folder / "r50vd.safetensors" for folder in (cache, package))
        for place in (official, bundled, embedded, Path("r50vd")):
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(b"weights")
            assert hub.find("r50vd") == place

    def test_a_folder_that_only_happens_to_be_called_like_a_model_does_not_hide_it(
        self, tmp_path, cache, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        Path("x").mkdir()
        cache.mkdir()
        (cache / "r101vd.safetensors").write_bytes(b"weights")
        assert hub.find("x") == cache / "r101vd.safetensors"
        (Path("x") / "model.safetensors").write_bytes(b"weights")
        assert hub.find("x") == Path("x")

    def test_without_rtdetrv2_home_the_users_cache_folder_is_used(self, monkeypatch):
        monkeypatch.delenv("RTDETRV2_HOME")
        assert hub.cache_folder().name == "rtdetrv2"

    def test_shards_are_found_through_their_index_when_all_are_there(self, tmp_path):
        names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        index = {"weight_map": {"b": names[1], "a": names[0], "c": f"x/../{names[1]}"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        (tmp_path / names[0]).touch()
        assert hub.weight_files(tmp_path) == []
        (tmp_path / names[1]).touch()
        assert {path.name for path in hub.weight_files(tmp_path)} == set(names)
        assert all(path.parent == tmp_path for path in hub.weight_files(tmp_path))

    def test_a_damaged_index_is_no_model(self, tmp_path):
        for text in ("{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'):
            (tmp_path / "model.safetensors.index.json").write_text(text)
            assert hub.weight_files(tmp_path) == []


class TestUrl:
    def test_a_file_is_fetched_once_and_its_digest_recorded(self, web, cache):
        web.files["/best.pth"] = BODY
        seen = []
        fetched = hub.pull(f"{web.url}/best.pth", progress=lambda *report: seen.append(report))
        assert fetched.path.read_bytes() == BODY
        assert (fetched.bytes, fetched.sha256) == (len(BODY), sha256(BODY))
        assert fetched.source == f"{web.url}/best.pth"
        assert seen[-1] == ("best.pth", len(BODY), len(BODY))
        assert hub.resolve(f"{web.url}/best.pth") == fetched.path
        assert len(web.requests) == 1
        assert kept(cache) == ["best.pth", "best.pth.json"]
        assert hub.known_digest(fetched.path) == sha256(BODY)
        assert hub.describe(fetched.path) == fetched

    def test_a_cut_connection_resumes_where_it_broke(self, web):
        web.files["/m.pth"] = BODY
        web.cuts = [1_000_000, 2_000_000]
        path = hub.resolve(f"{web.url}/m.pth")
        assert path.read_bytes() == BODY
        ranges = [wanted for _, wanted, _ in web.requests]
        assert ranges == [None, "bytes=1000000-", "bytes=3000000-"]

    def test_a_later_call_goes_on_from_what_an_earlier_one_left(self, web, cache):
        web.files["/m.pth"] = BODY
        web.cuts = [1_000_000] + [0] * download._ATTEMPTS
        with pytest.raises(DownloadError, match="cut at 1000000 of 5120000 bytes, 5 times"):
            hub.resolve(f"{web.url}/m.pth")
        assert kept(cache) == ["m.pth.part", "m.pth.part.version"]
        web.requests.clear()
        assert hub.resolve(f"{web.url}/m.pth").read_bytes() == BODY
        assert [wanted for _, wanted, _ in web.requests] == ["bytes=1000000-"]
        assert kept(cache) == ["m.pth", "m.pth.json"]

    def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(self, web):
        web.files["/m.pth"] = BODY
        web.cuts = [1_000_000] + [0] * download._ATTEMPTS
        with pytest.raises(DownloadError):
            hub.resolve(f"{web.url}/m.pth")
        web.files["/m.pth"] = BODY[::-1]
        assert hub.resolve(f"{web.url}/m.pth").read_bytes() == BODY[::-1]

    def test_without_a_version_from_the_server_nothing_is_resumed(self, web):
        web.files["/m.pth"] = BODY
        web.versioned = False
        web.cuts = [1_000_000]
        assert hub.resolve(f"{web.url}/m.pth").read_bytes() == BODY
        assert [wanted for _, wanted, _ in web.requests] == [None, None]

    def test_a_part_that_is_already_whole_is_accepted(self, web, cache):
        web.files["/m.pth"] = BODY
        web.cuts = [1_000_000] + [0] * download._ATTEMPTS
        with pytest.raises(DownloadError):
            hub.resolve(f"{web.url}/m.pth")
        next(cache.rglob("*.part")).write_bytes(BODY)
        assert hub.resolve(f"{web.url}/m.pth").read_bytes() == BODY

    def test_a_digest_in_the_url_is_checked_and_a_wrong_one_leaves_nothing(self, web, cache):
        web.files["/m.pth"] = BODY
        with pytest.raises(DownloadError, match="not the expected file"):
            hub.resolve(f"{web.url}/m.pth#sha256={'0' * 64}")
        assert kept(cache) == []
        assert hub.resolve(f"{web.url}/m.pth#sha256={sha256(BODY)}").is_file()

    def test_the_first_digest_is_checked_at_every_later_download(self, web, cache):
        web.files["/m.pth"] = BODY
        path = hub.resolve(f"{web.url}/m.pth")
        path.unlink()
        web.files["/m.pth"] = BODY[:-1] + b"x"
        with pytest.raises(DownloadError, match=sha256(BODY)):
            hub.resolve(f"{web.url}/m.pth")
        assert kept(cache) == ["m.pth.json"]
        web.files["/m.pth"] = BODY
        assert hub.resolve(f"{web.url}/m.pth").read_bytes() == BODY

    def test_a_redirection_is_followed_and_resumed(self, web):
        web.files["/cdn/m"] = BODY
        web.redirects["/m.pth"] = "/cdn/m"
        web.cuts = [1_000_000]
        path = hub.resolve(f"{web.url}/m.pth")
        assert (path.name, path.read_bytes()) == ("m.pth", BODY)
        assert web.requests[-1][:2] == ("/cdn/m", "bytes=1000000-")

    @pytest.mark.parametrize(
        ("target", "reason"),
        [
            ("file:///etc/passwd", "Redirection to url 'file:///etc/passwd' is not allowed"),
            ("ftp://127.0.0.1/m", "ftp: is not of the web"),
            ("http://127.0.0.1:1/secret?key=hidden", "inside this network"),
            ("http://169.254.169.254/latest/meta-data", "inside this network"),
            ("http://10.0.0.7/m", "inside this network"),
            ("http://[::1]/m", "inside this network"),
            ("http://[::ffff:127.0.0.1]/m", "inside this network"),
            ("http://0/m", "inside this network"),
            ("http://localhost/m", "inside this network"),
        ],
    )
    def test_a_server_outside_leads_to_nothing_inside(
        self, web, cache, monkeypatch, target, reason
    ):
        monkeypatch.setenv("http_proxy", web.url)  # asked for whole addresses, it is the outside
        monkeypatch.setenv("no_proxy", "")
        web.redirects["http://models.invalid/m.pth"] = target
        with pytest.raises(DownloadError) as refusal:
            hub.resolve("http://models.invalid/m.pth")
        assert reason in str(refusal.value)
        assert "hidden" not in str(refusal.value)
        assert len(web.requests) == 1
        assert kept(cache) == []

    def test_a_server_outside_leads_to_others_outside(self, web, monkeypatch):
        monkeypatch.setenv("http_proxy", web.url)
        web.redirects["http://models.invalid/m.pth"] = "http://cdn.invalid/m"
        web.files["http://cdn.invalid/m"] = BODY
        assert hub.resolve("http://models.invalid/m.pth").read_bytes() == BODY

    def test_what_was_asked_for_encrypted_is_not_fetched_in_the_clear(self):
        request = Request("https://models.invalid/m.pth?key=hidden")
        with pytest.raises(DownloadError, match="it is not encrypted") as refusal:
            _Redirections().redirect_request(
                request, io.BytesIO(), 302, "", {}, "http://models.invalid/m"
            )
        assert "hidden" not in str(refusal.value)

    def test_a_missing_file_is_not_asked_for_again(self, web, cache):
        with pytest.raises(DownloadError, match=r"/gone\.pth: the server says 404"):
            hub.resolve(f"{web.url}/gone.pth")
        assert len(web.requests) == 1
        assert kept(cache) == []

    def test_a_busy_server_is_asked_again(self, web):
        web.files["/m.pth"] = BODY
        web.refusals = [503, 429]
        assert hub.resolve(f"{web.url}/m.pth").read_bytes() == BODY

    def test_a_server_that_is_not_there_is_one_clear_error(self, web):
        with pytest.raises(DownloadError, match="Connection refused"):
            hub.resolve("http://127.0.0.1:9/m.pth")

    def test_credentials_reach_the_server_and_nobody_else(self, web, cache):
        web.files["/cdn/m"] = BODY
        web.redirects["/m.pth"] = "/cdn/m"
        address = web.url.replace("//", "//user:s%40cret@")
        fetched = hub.pull(f"{address}/m.pth?token=hidden")
        assert web.requests[0][2] == "Basic dXNlcjpzQGNyZXQ="
        assert web.requests[1][2] is None
        assert fetched.source == f"{web.url}/m.pth"
        with pytest.raises(DownloadError) as caught:
            hub.pull(f"{address}/gone.pth?token=hidden")
        written = "".join(p.read_text() for p in cache.rglob("*.json")) + str(caught.value)
        assert "cret" not in written
        assert "hidden" not in written

    def test_a_proxy_of_the_environment_is_used(self, web, monkeypatch):
        web.files["http://nowhere.invalid/m.pth"] = BODY  # a proxy is asked for whole addresses
        monkeypatch.setenv("http_proxy", web.url)
        assert hub.resolve("http://nowhere.invalid/m.pth").read_bytes() == BODY

    def test_queries_tell_files_apart(self, web):
        web.files["/get"] = BODY
        first, second = (hub.resolve(f"{web.url}/get?id={i}") for i in (1, 2))
        assert first != second

    def test_a_file_name_cannot_leave_the_cache(self, web, cache):
        web.files["/a/..%2f..%2f.."] = BODY
        assert hub.resolve(f"{web.url}/a/..%2f..%2f..").is_relative_to(cache / "url")

    @pytest.mark.parametrize("told", ["argument", "environment"])
    def test_offline_is_one_clear_sentence_and_no_request(self, web, monkeypatch, told):
        if told == "environment":
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(DownloadError, match="rtdetrv2 models pull r50vd` with a network"):
            hub.resolve("r50vd", offline=told == "argument")
        with pytest.raises(DownloadError, match="downloads are off"):
            hub.resolve(f"{web.url}/m.pth", offline=told == "argument")
        assert web.requests == []

    def test_parallel_callers_fetch_once(self, web):
        web.files["/m.pth"] = BODY
        callers = [
            threading.Thread(target=hub.resolve, args=(f"{web.url}/m.pth",)) for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(web.requests) == 1


class TestRepository:
    @pytest.fixture
    def repository(self, web, monkeypatch) -> Web:
        monkeypatch.setenv("HF_ENDPOINT", web.url)
        monkeypatch.setenv("HF_TOKEN", "")
        files = {
            "README.md": b"---\nlicense: mit\n---",
            "config.json": b"{}",
            "model.safetensors": BODY,
            "pytorch_model.bin": b"the same once more",
            "preprocessor_config.json": b"{}",
        }
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": "b"}
            | ({"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 100}}
               if len(content) > 1000 else {})
            for name, content in files.items()
        ]  # fmt: skip
        for repo in ("someone/model", "PekingU/rtdetr_v2_r18vd"):
            info = {"id": repo, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}}
            web.files[f"/api/models/{repo}"] = json.dumps(info).encode()
            web.files[f"/api/models/{repo}/revision/v2"] = json.dumps(info).encode()
            for name, content in files.items():
                web.files[f"/{repo}/resolve/{COMMIT}/{name}"] = content
        return web

    def test_a_name_with_a_repository_is_fetched_as_a_transformers_folder(self, repository, cache):
        seen = []
        fetched = hub.pull("r18vd", progress=lambda *report: seen.append(report))
        assert fetched.path == cache / "hub" / "PekingU--rtdetr_v2_r18vd"
        assert sorted(p.name for p in fetched.path.iterdir() if p.is_file()) == [
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        ]
        assert (fetched.sha256, fetched.bytes) == (sha256(BODY), len(BODY))
        assert fetched.source == "hf://PekingU/rtdetr_v2_r18vd"
        assert seen[-1] == ("model.safetensors", len(BODY), len(BODY))
        assert hub.resolve("s", offline=True) == fetched.path
        assert hub.known_digest(fetched.path) == sha256(BODY)
        assert hub.describe(fetched.path) == fetched

    def test_an_address_with_a_revision_works_and_gives_the_cards_licence(self, repository):
        assert hub.pull("hf://someone/model@v2").license == "mit"
        assert hub.find("hf://someone/model") is None

    def test_weights_that_are_not_what_the_hub_says_leave_nothing(self, repository, cache):
        repository.files[f"/someone/model/resolve/{COMMIT}/model.safetensors"] = BODY[::-1]
        with pytest.raises(DownloadError, match=r"model\.safetensors is damaged; nothing was kept"):
            hub.pull("hf://someone/model")
        assert kept(cache) == []

    def test_weights_that_changed_since_the_first_download_are_refused(self, repository, cache):
        path = hub.resolve("hf://someone/model")
        (path / "model.safetensors").unlink()
        record = path.with_name(path.name + ".json")
        record.write_text(record.read_text().replace(sha256(BODY), "0" * 64))
        with pytest.raises(DownloadError, match="has changed since its first download"):
            hub.resolve("hf://someone/model")
        assert kept(cache) == [record.name]

    def test_a_repository_without_weights_says_so(self, repository):
        info = {"id": "someone/model", "sha": COMMIT, "siblings": [{"rfilename": "README.md"}]}
        repository.files["/api/models/someone/model"] = json.dumps(info).encode()
        with pytest.raises(DownloadError, match="holds neither"):
            hub.pull("hf://someone/model")

    def test_an_unknown_repository_is_one_clear_error(self, repository):
        with pytest.raises(DownloadError, match="hf://nobody/nothing: the hub says 404"):
            hub.pull("hf://nobody/nothing")

    def test_where_the_hub_fails_the_official_file_is_tried(self, repository, monkeypatch):
        repository.files = {"/official.pth": BODY}
        entry = hub.Entry(
            name="r18vd", license="Apache-2.0", params=1, ap=1, ap50=2,
            hub="PekingU/rtdetr_v2_r18vd", url=f"{repository.url}/official.pth",
        )  # fmt: skip
        monkeypatch.setattr(hub, "registry", lambda: {"r18vd": entry})
        fetched = hub.pull("r18vd")
        assert (fetched.path.name, fetched.license) == ("official.pth", "Apache-2.0")
        repository.files.clear()
        fetched.path.unlink()
        with pytest.raises(DownloadError, match=r"hf://PekingU.*; .*official\.pth"):
            hub.pull("r18vd")


def test_importing_the_hub_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, rtdetrv2_cli.hub as h; h.canonical_name('s'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
