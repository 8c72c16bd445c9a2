"""How batches are fed is decided by the clock, and changes nothing of what is drawn."""

import numpy as np
import pytest
import torch

from medssl.data import feed, resident
from medssl.data.feed import Feed, Pace, workers_for
from medssl.data.plan import Plan
from medssl.data.resident import Resident, room_bytes
from medssl.data.sample import batches
from medssl.data.store import Store
from medssl.errors import UserError

STEPS = 13


@pytest.fixture
def store(make_store, ct_plan: Plan, ct_volumes, ct_masks) -> Store:
    return make_store(ct_plan, ct_volumes, ct_masks)


@pytest.fixture
def fed(store, monkeypatch):
    """Runs a feed by a clock of its own: a batch takes ``load_s`` to make, the caller ``step_s`` to use."""
    now = [0.0]
    monkeypatch.setattr(feed.time, "perf_counter", lambda: now[0])

    def run(load_s: float, step_s: float, start: int = 0, steps: int = STEPS, **options):
        asked, told, seen = [], [], []

        def source(at: int, workers: int):
            asked.append((at, workers))
            draw = batches(store, [0, 1, 2], region=(16, 16, 12), batch=2, steps=min(steps, STEPS), seed=3, start=at)
            for batch in draw:  # in this process, whatever the number: the order is what matters here
                now[0] += load_s if store.resident is None else 0.1 * load_s
                yield batch

        one = Feed(source, start, steps, store, [0, 1, 2], tell=told.append, **options)
        for batch in one:
            now[0] += step_s
            seen.append(batch.image)
        assert told == [one]
        return one, asked, torch.stack(seen)

    return run


def drawn(store: Store, start: int = 0) -> torch.Tensor:
    every = batches(store, [0, 1, 2], region=(16, 16, 12), batch=2, steps=STEPS, seed=3, start=start)
    return torch.stack([batch.image for batch in every])


def test_where_loading_is_short_nothing_is_started(fed, store):
    one, asked, seen = fed(load_s=0.01, step_s=1.0)
    assert (one.workers, one.held, asked) == (0, False, [(0, 0), (5, 0)])
    assert one.pace.load_s == pytest.approx(0.01) and one.pace.step_s == pytest.approx(1.0)
    assert torch.equal(seen, drawn(store))


def test_where_steps_wait_the_scans_come_into_memory_and_then_processes(fed, store, monkeypatch):
    monkeypatch.setattr(feed, "cores", lambda share: 8)
    expected = drawn(store, start=1)
    one, asked, seen = fed(load_s=1.0, step_s=0.06, start=1, steps=10**6)
    assert one.held and asked == [(1, 0), (6, 0), (11, 3)]
    assert one.pace.load_s == pytest.approx(0.1)  # measured anew, from memory
    assert one.workers == 3  # 1.5 · 0.1 / 0.06
    assert torch.equal(seen, expected)


def test_what_a_person_chose_holds_from_the_first_batch(fed, store):
    one, asked, seen = fed(load_s=1.0, step_s=0.01, workers=2)
    assert (asked, one.pace, one.held) == ([(0, 2)], None, False)
    assert torch.equal(seen, drawn(store))
    one, asked, seen = fed(load_s=1.0, step_s=0.01, workers=0, cache="on")
    assert one.held and torch.equal(seen, drawn(store))


def test_a_cache_is_neither_forced_nor_made_where_it_does_not_fit(fed, store, monkeypatch):
    assert not fed(load_s=1.0, step_s=0.01, steps=10**6, cache="off")[0].held
    monkeypatch.setattr(feed, "room_bytes", lambda device=None: 1000.0)
    assert not fed(load_s=1.0, step_s=0.01, steps=10**6)[0].held
    with pytest.raises(UserError, match=r"GiB in memory, and .* GiB may be used \(--cache\): leave it out"):
        fed(load_s=1.0, step_s=0.01, cache="on")


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_runs_shorter_than_the_measurement(fed, store, steps):
    one, _, seen = fed(load_s=1.0, step_s=0.01, start=0, steps=steps) if steps else (None, None, drawn(store)[:0])
    assert torch.equal(seen, drawn(store)[:steps])
    assert one is None or one.workers == 0


@pytest.mark.parametrize(
    ("pace", "left", "cores", "workers"),
    [
        (Pace(0.01, 1.0), 10**6, 8, 0),  # 1 % of the time
        (Pace(0.2, 0.12), 10**6, 8, 3),
        (Pace(0.2, 0.12), 10, 8, 0),  # over before the processes have started
        (Pace(0.2, 0.12), 10**6, 1, 0),  # no core to spare
        (Pace(0.2, 0.12), 10**6, 2, 1),
        (Pace(5.0, 0.1), 10**6, 64, feed.MOST),
    ],
)
def test_as_many_processes_as_hide_the_loading(pace, left, cores, workers):
    assert workers_for(pace, left, cores) == workers


# In memory -----------------------------------------------------------------------------------------------------------


def test_crops_from_memory_are_those_of_the_files(store):
    boxes = [None, (slice(3, 9), slice(0, 5), slice(2, 3))]
    expected = [store.read(row, box) for row in (0, 2, 1) for box in boxes]
    store.resident = Resident(store, [2, 0, 2])
    assert store.resident[1] is None  # read from its file
    found = [store.read(row, box) for row in (0, 2, 1) for box in boxes]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(expected, found, strict=True))
    assert store.resident.buffer.is_shared()
    assert store.bytes([2, 0, 2]) == len(store.resident.buffer)
    found[0][...] = 0  # a copy: what is held stays
    assert np.array_equal(store.read(0), expected[0])


def test_loader_processes_share_what_is_held(store):
    expected = drawn(store)
    store.resident = Resident(store, [0, 1, 2])
    for file in (store.data / "store").glob("*.b2nd"):
        file.write_bytes(b"gone")
    found = batches(store, [0, 1, 2], region=(16, 16, 12), batch=2, steps=STEPS, seed=3, workers=1)
    assert torch.equal(torch.stack([batch.image for batch in found]), expected)


@pytest.mark.parametrize("region", [(16, 16, 12), (30, 8, 20)])  # scans are 20×24×18: the second stands out of them
def test_crops_cut_on_a_device_are_those_of_the_files_to_the_bit(store, region, monkeypatch):
    def made():
        drawn = batches(
            store, [0, 1, 2], region=region, batch=2, steps=STEPS, seed=3, masks=True, foreground=0.5, start=2
        )
        return [vars(batch) for batch in drawn]

    expected = made()
    store.resident = Resident(store, [0, 1, 2], torch.device("cpu"))
    assert not store.resident.buffer.is_shared() and store.resident[0] is None
    elsewhere = store.read(0)  # by whoever wants an array here
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("read from the file"))
    for one, two in zip(expected, made(), strict=True):
        for name, value in one.items():
            same = value == two[name] if not isinstance(value, torch.Tensor) else torch.equal(value, two[name])
            assert same and getattr(value, "dtype", None) == getattr(two[name], "dtype", None), name
    assert torch.equal(store.resident.on_device(0), torch.from_numpy(elsewhere))


def test_a_scan_that_the_device_does_not_hold_is_read_from_its_file(store):
    expected = drawn(store)
    store.resident = Resident(store, [0, 2], torch.device("cpu"))
    assert torch.equal(drawn(store), expected)


def test_a_device_needs_no_loader_processes(fed, store, monkeypatch):
    given, expected = {"cache": "device", "device": torch.device("cpu")}, drawn(store)
    one, asked, seen = fed(1.0, 0.1, steps=10**6, **given)
    assert asked == [(0, 0), (5, 0)]
    assert one.workers == 0 and one.held and store.resident.device == torch.device("cpu")
    assert torch.equal(seen, expected)
    store.resident = None
    monkeypatch.setattr(feed, "room_bytes", lambda device: 10.0 if device == torch.device("cpu") else 1e12)
    with pytest.raises(UserError, match=r"the scans take .* may be used"):
        fed(1.0, 0.1, **given)


def test_room_is_a_share_of_the_least_that_is_free(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(resident, "INFO", tmp_path / "meminfo")
    monkeypatch.setattr(resident, "LIMIT", tmp_path)
    monkeypatch.setattr(resident, "SHARED", tmp_path)
    assert room_bytes() == 0.5 * 4000 * 1024
    for name, text in (("memory.max", "3000000\n"), ("memory.current", "1000000\n")):
        (tmp_path / name).write_text(text)
    assert room_bytes() == 1e6
    (tmp_path / "memory.max").write_text("max\n")
    assert room_bytes() == 0.5 * 4000 * 1024
    monkeypatch.setattr(resident, "SHARED", tmp_path / "none")
    monkeypatch.setattr(resident, "INFO", tmp_path / "none")
    assert room_bytes() == 0.0  # nothing is known: no cache
