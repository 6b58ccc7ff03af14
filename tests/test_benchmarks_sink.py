"""The receiver of ``benchmarks.end_to_end`` takes what a real sender sends, and loses nothing of it."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from benchmarks.sink import Sink
from tests.ports import free_port


def _object(sop_class: str, uid: str, source: str) -> Dataset:
    made, series, image = Dataset(), Dataset(), Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = sop_class, uid
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.3", source
    series.ReferencedInstanceSequence = [image]
    made.ReferencedSeriesSequence = [series]
    made.PixelData = bytes(400_000)  # several PDUs
    made["PixelData"].VR = "OB"
    return made


def test_the_receiver_of_the_benchmark_keeps_every_object_and_knows_whose_a_seg_is() -> None:
    sink = Sink(free_port())
    entity = AE()
    entity.add_requested_context(SegmentationStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(BasicTextSRStorage, [ImplicitVRLittleEndian])
    with sink.start():
        association = entity.associate("127.0.0.1", sink.port)
        assert association.is_established
        report = _object(BasicTextSRStorage, "1.2.9", "1.2.7")
        report.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        sent = [_object(SegmentationStorage, "1.2.8", "1.2.77"), report]
        assert [association.send_c_store(each).Status for each in sent] == [0, 0]
        association.release()
        assert sink.wait_for("1.2.77", 10)
        assert not sink.wait_for("1.2.7", 0.01)
    for came, each in zip(sink.objects(), sent, strict=True):
        assert (came.SOPInstanceUID, came.PixelData) == (each.SOPInstanceUID, each.PixelData)
        assert came.ReferencedSeriesSequence == each.ReferencedSeriesSequence


def test_it_takes_nothing_but_c_store() -> None:
    sink = Sink(free_port())
    entity = AE()
    entity.dimse_timeout = 2
    entity.add_requested_context(Verification)
    with sink.start():
        association = entity.associate("127.0.0.1", sink.port)
        assert "Status" not in association.send_c_echo()
    assert sink.stored == []
