"""A store on a server, over HTTP on this machine: the same voxels, each file fetched once, mistakes in a sentence."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.plan import Plan
from medssl.data.prepared import save
from medssl.data.remote import remote
from medssl.data.sample import batches
from medssl.data.store import Store
from medssl.errors import UserError


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and notes what is asked for."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *words):
        pass


@pytest.fixture
def store(make_store, ct_plan: Plan, ct_volumes, ct_masks) -> Store:
    return make_store(ct_plan, ct_volumes, ct_masks)


@pytest.fixture
def served(store, tmp_path, monkeypatch):
    """The address of the store, and the paths that were fetched from it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    asked: list[str] = []
    handler = partial(type("Noting", (Handler,), {"asked": asked}), directory=str(store.data))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def draw(store: Store, workers: int = 0) -> list[torch.Tensor]:
    region = (16, 16, 12)
    drawn = batches(store, [0, 1], region=region, batch=2, steps=3, seed=3, workers=workers, masks=True)
    return [torch.cat([batch.image.flatten(), batch.mask.flatten()]) for batch in drawn]


def test_the_same_voxels_and_every_scan_fetched_once(store, served):
    url, asked = served
    away = Store(Path(url))  # as the command line has it: a path, and a slash short
    assert away.hash == store.hash and not [path for path in asked if "store/" in path]
    for a, b in zip(draw(store), draw(away), strict=True):
        assert torch.equal(a, b)
    arrays = sorted(path for path in asked if "store/" in path)
    assert arrays == [f"/store/item00{i}{end}" for i in range(2) for end in (".b2nd", ".mask.b2nd")]
    asked.clear()
    again = Store(Path(url))
    assert np.array_equal(again.read(1), store.read(1))
    assert not [path for path in asked if "store/" in path]
    assert not list(again.data.rglob("*.tmp"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_loader_processes_fetch_for_themselves(store, served):
    for a, b in zip(draw(store), draw(Store(Path(served[0])), workers=1), strict=True):
        assert torch.equal(a, b)


def test_a_scan_that_was_prepared_anew_is_fetched_anew(store, served, ct_plan, ct_volumes, tmp_path):
    from medssl.data.prepared import load_prepared, write_prepared

    url, _ = served
    assert np.array_equal(Store(Path(url)).read(0), store.read(0))
    record = save(store.data / "store", "item000", ct_plan.prepare(ct_volumes[1], None), "another stamp")
    rows = [record if row["item"] == "item000" else row for row in load_prepared(store.data).rows(named=True)]
    write_prepared(store.data, rows, ct_plan)
    assert np.array_equal(Store(Path(url)).read(0), Store(store.data).read(0))


def test_addresses_are_told_from_paths():
    assert remote("DATA") is None and remote(Path("/a/b:/c")) is None and remote(Path("C:/data")) is None
    assert remote(Path("s3://bucket/x/")).url == "s3://bucket/x"
    assert remote("https://host:80/x").url == "https://host:80/x"
    assert remote("http://a/x").folder != remote("http://a/y").folder


def test_mistakes_are_told_in_one_sentence(store, served):
    url, _ = served
    with pytest.raises(
        UserError, match=r"no index\.toml at this address \(http://.*/x\): give the address of a folder"
    ):
        Store(Path(f"{url}/x"))
    with pytest.raises(UserError, match=r"cannot be read: .*\(http://127\.0\.0\.1:9/index\.toml\): check the address"):
        Store(Path("http://127.0.0.1:9"))
    with pytest.raises(UserError, match=r"cannot be read: .*nosuch"):
        Store(Path("nosuch://host/x"))
    away = Store(Path(url))
    (store.data / "store" / "item002.b2nd").unlink()
    with pytest.raises(UserError, match="the prepared scan is gone"):
        away.read(2)
