"""The instance store: durable, content-addressed, and clean after a crash."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from node.dicom.instance_store import SPOOL, InstanceStore, StoreError
from node.dicom.spool_digest import BackgroundDigest
from tests.stores import store_away


@pytest.fixture
def store(tmp_path: Path) -> InstanceStore:
    store = InstanceStore(tmp_path / "store")
    store.prepare()
    return store


def test_a_store_that_is_gone_is_a_lack_of_resources(tmp_path: Path) -> None:
    """Not an end of the association: the sender is to try again."""
    store = InstanceStore(tmp_path / "mount/store", minimum_free_bytes=1)
    store.prepare()
    with store_away(tmp_path / "mount"), pytest.raises(StoreError):
        store.temporary()
    receive(store, b"data set")


def receive(store: InstanceStore, data: bytes, preface: bytes = b"preface") -> str:
    spool = store.temporary(preface)
    spool.write(data)
    path = store.keep(spool)
    store.complete(spool)
    return path


def names(store: InstanceStore) -> list[str]:
    files = (path for path in store.folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(str(path.relative_to(store.folder)) for path in files)


def test_a_file_is_named_by_the_digest_of_its_data_set(store: InstanceStore) -> None:
    path = receive(store, b"data set")

    digest = hashlib.sha256(b"data set").hexdigest()
    assert path == f"instances/{digest[:2]}/{digest}.dcm"
    assert (store.folder / path).read_bytes() == b"prefacedata set"
    assert names(store) == [path]


@pytest.mark.parametrize("at_once", [1, 6, 7, 9])
def test_a_disk_that_takes_a_part_at_a_time_gets_all(
    store: InstanceStore, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    write = os.write
    monkeypatch.setattr(os, "writev", lambda file, parts: write(file, b"".join(parts)[:at_once]))
    monkeypatch.setattr(os, "write", lambda file, data: write(file, bytes(data)[:at_once]))
    path = receive(store, b"data set")
    assert (store.folder / path).read_bytes() == b"prefacedata set"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.binary(max_size=3000), max_size=8), st.binary(max_size=300))
def test_fragments_do_not_matter(store: InstanceStore, fragments: list[bytes], preface: bytes) -> None:
    spool = store.temporary(preface)
    for fragment in fragments:
        spool.write(fragment)
    path = store.keep(spool)
    store.complete(spool)

    assert spool.byte_count == sum(map(len, fragments))
    # Of one digest the first file stays, with what stands before the data set in it.
    assert (store.folder / path).read_bytes().endswith(b"".join(fragments))
    assert path == InstanceStore.path_of(hashlib.sha256(b"".join(fragments)).hexdigest())


def test_a_repeat_leaves_the_first_file_alone(store: InstanceStore) -> None:
    first = receive(store, b"same", b"first!!")
    inode = (store.folder / first).stat().st_ino
    second = receive(store, b"same", b"second!")

    assert second == first
    assert (store.folder / first).stat().st_ino == inode
    assert names(store) == [first]


def test_a_damaged_file_is_replaced_by_a_repeat(store: InstanceStore) -> None:
    path = receive(store, b"whole")
    (store.folder / path).write_bytes(b"")
    receive(store, b"whole")

    assert (store.folder / path).read_bytes() == b"prefacewhole"


def test_discarding_leaves_nothing_and_does_no_harm_twice(store: InstanceStore) -> None:
    spool = store.temporary(b"preface")
    spool.write(b"half")
    spool.discard()
    spool.discard()

    assert names(store) == []


def test_what_was_never_whole_is_removed_at_start(store: InstanceStore) -> None:
    store.temporary(b"preface").write(b"half")

    assert list(store.unfinished()) == []
    assert names(store) == []


def test_what_was_kept_but_not_complete_is_handed_out_at_start(store: InstanceStore) -> None:
    spool = store.temporary(b"preface")
    spool.write(b"whole")
    path = store.keep(spool)

    assert list(store.unfinished()) == [spool.path]
    assert (store.folder / path).is_file()


def test_a_failed_first_copy_stays_for_now_and_a_failed_repeat_goes(store: InstanceStore) -> None:
    first, second = store.temporary(), store.temporary()
    for spool in (first, second):
        spool.write(b"data")
        kept = store.keep(spool)
        store.mark_failed(spool)

    assert list(store.unfinished()) == [], "nobody is to record it"
    assert list(store.failed_files().values()) == [kept]


def test_too_little_free_space(tmp_path: Path) -> None:
    store = InstanceStore(tmp_path, minimum_free_bytes=2**60)
    store.prepare()

    with pytest.raises(StoreError) as caught:
        store.temporary()
    assert caught.value.errno == errno.ENOSPC


def test_space_that_runs_out_while_a_long_data_set_arrives(tmp_path: Path) -> None:
    class Shrinking(InstanceStore):
        looks = 0

        def check_space(self) -> None:
            self.looks += 1
            if self.looks > 2:
                raise StoreError(errno.ENOSPC, "full")

    store = Shrinking(tmp_path)
    store.prepare()
    spool = store.temporary()
    megabyte = bytes(1024 * 1024)
    for _ in range(32):
        spool.write(megabyte)
    with pytest.raises(StoreError):
        spool.write(megabyte)

    assert names(store) == []


def test_a_disk_that_takes_no_more(store: InstanceStore, tmp_path: Path) -> None:
    spool = store.temporary(b"preface")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, spool._descriptor)
    os.close(full)

    with pytest.raises(StoreError) as caught:
        spool.write(b"data")
    assert caught.value.errno == errno.ENOSPC
    assert names(store) == []


def _left_by(store: InstanceStore, data: bytes) -> Path:
    """A data set that is kept and not complete, as a crash leaves it."""
    spool = store.temporary(b"preface")
    spool.write(data)
    store.keep(spool)
    return spool.path


def _second(store: InstanceStore) -> InstanceStore:
    second = InstanceStore(store.folder)
    second.prepare()
    return second


def test_a_listener_leaves_alone_what_another_one_is_receiving(store: InstanceStore) -> None:
    receiving, kept = store.temporary(b"preface"), _left_by(store, b"whole")
    second = _second(store)

    assert list(second.unfinished()) == []
    assert receiving.path.exists()
    assert kept.exists()
    receiving.write(b"more")
    assert (store.folder / store.keep(receiving)).read_bytes() == b"prefacemore"


def test_what_a_dead_listener_has_left_is_taken_over_once(store: InstanceStore) -> None:
    half, kept, failed = store.temporary(b"preface"), _left_by(store, b"whole"), store.temporary()
    failed.write(b"failed")
    note = store.keep(failed)
    store.mark_failed(failed)
    store.close()  # as the kernel does when it dies
    second, third = _second(store), _second(store)

    [taken] = second.unfinished()
    assert taken.name == f"{second.owner}-{kept.name.partition('-')[2]}"
    assert list(second.failed_files().values()) == [note]
    assert not half.path.exists()
    assert list(third.unfinished()) == []
    assert third.failed_files() == {}


def test_attempts_are_counted_over_listeners(store: InstanceStore) -> None:
    _left_by(store, b"deadly")
    for _ in range(2):
        store.close()
        store = _second(store)
        [path] = store.unfinished()
        assert store.begin_attempt(path) is not None
    store.close()
    store = _second(store)

    assert [store.begin_attempt(path) for path in store.unfinished()] == [None]


def test_lock_files_of_listeners_do_not_pile_up(store: InstanceStore) -> None:
    _left_by(store, b"whole")
    store.close()
    locks = store.folder.glob("spool-*.lock")
    assert len(list(locks)) == 1, "it says whose the file in the spool was"

    second = _second(store)
    for path in second.unfinished():
        path.unlink()
    assert [path.stem for path in store.folder.glob("spool-*.lock")] == [f"spool-{second.owner}"]
    second.close()
    assert list(store.folder.glob("spool-*.lock")) == []


@pytest.mark.parametrize("fragment", [64 * 1024, 300_001, 1024 * 1024])
def test_a_large_data_set_is_digested_behind_its_writer(store: InstanceStore, fragment: int) -> None:
    data = os.urandom(5 * 1024 * 1024 + 7)
    spool = store.temporary(b"preface")
    for start in range(0, len(data), fragment):
        spool.write(memoryview(data)[start : start + fragment])
    path = store.folder / store.keep(spool)
    store.complete(spool)

    assert spool.digest == hashlib.sha256(data).hexdigest()
    assert path.read_bytes() == b"preface" + data
    assert spool.beginning == data[: len(spool.beginning)]
    assert [thread.name for thread in threading.enumerate()].count("background-digest") == 0


def test_a_large_data_set_that_is_cut_off_leaves_neither_file_nor_thread(store: InstanceStore) -> None:
    spool = store.temporary()
    for _ in range(5):
        spool.write(bytes(1024 * 1024))
    spool.discard()

    assert list((store.folder / SPOOL).iterdir()) == []
    assert [thread.name for thread in threading.enumerate()].count("background-digest") == 0


def test_a_file_that_is_shorter_than_what_was_written_is_noticed(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+", buffering=0) as file:
        file.write(b"short")
        background_digest = BackgroundDigest(file.fileno(), 0, hashlib.sha256())
        background_digest.advance(100)
        with pytest.raises(OSError, match="shorter"):
            background_digest.finish()


def test_bytes_that_another_process_removes_as_failed_stay_for_who_records_them(tmp_path: Path) -> None:
    """Two processes receive the same bytes: what one answers with a failure and removes, the other has recorded."""
    one, other = InstanceStore(tmp_path), InstanceStore(tmp_path, spool="spool-2")
    one.prepare()
    other.prepare()
    failing, recorded = (store.temporary() for store in (one, other))
    for spool in (failing, recorded):
        spool.write(b"the same bytes")
    kept = {store.keep(spool) for store, spool in ((one, failing), (other, recorded))}
    one.mark_failed(failing)
    [(note, path)] = one.failed_files().items()

    # The row of the other is committed between the two looks at the database.
    looks = iter([False, True])
    one.remove_failed(note, lambda: next(looks))
    assert (tmp_path / path).read_bytes() == b"the same bytes"

    # It is committed after both, so it is the other that puts the bytes back.
    (tmp_path / path).unlink()
    other.complete(recorded)
    assert kept == {path}
    assert (tmp_path / path).read_bytes() == b"the same bytes"
    assert not [*one.spool.iterdir(), *other.spool.iterdir()]
    one.close()
    other.close()
