"""Command sets: what pynetdicom and DCMTK mean by them is what is read, and what is written they understand."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

from node.dicom.spool import Answer
from node.dicom.upper_layer.dimse import (
    InvalidMessageError,
    StoreRequest,
    command_pdus,
    read_command,
    read_store_request,
    write_store_response,
)

uids = st.from_regex(r"[1-9](\.[1-9][0-9]{0,6}){1,6}", fullmatch=True)


def by_pynetdicom(message_id: int, sop_class: str, sop_instance: str, priority: int) -> bytes:
    request = C_STORE()
    request.MessageID, request.Priority = message_id, priority
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
    request.DataSet = BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    pieces = [data for primitive in message.encode_msg(1, 0) for _, data in primitive.presentation_data_value_list]
    return b"".join(piece[1:] for piece in pieces if piece[0] & 1)


@settings(deadline=None)
@given(st.integers(0, 65535), uids, uids, st.sampled_from([0, 1, 2]))
def test_a_request_of_pynetdicom_is_read(message_id: int, sop_class: str, sop_instance: str, priority: int) -> None:
    encoded = by_pynetdicom(message_id, sop_class, sop_instance, priority)

    request = read_store_request(read_command(encoded))

    assert request == StoreRequest(message_id, sop_class, sop_instance, priority == 1, True)


@settings(deadline=None)
@given(
    st.integers(0, 65535),
    uids,
    uids,
    st.sampled_from([0x0000, 0xA700, 0xA900, 0xC000, 0x0110]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=100),
    st.sampled_from([0, 128, 1000, 131072]),
)
def test_pynetdicom_reads_a_response(
    message_id: int, sop_class: str, sop_instance: str, status: int, comment: str, longest: int
) -> None:
    request = StoreRequest(message_id, sop_class, sop_instance, False, True)
    stream = command_pdus(3, write_store_response(request, Answer(status, comment)), longest)

    message = DIMSEMessage()
    complete = False
    while stream:
        (length,) = struct.unpack_from(">L", stream, 2)
        assert not longest or length <= longest
        assert not complete
        pdu = P_DATA_TF()
        pdu.decode(stream[: 6 + length])
        complete = message.decode_msg(pdu.to_primitive())
        stream = stream[6 + length :]
    answer = message.message_to_primitive()
    assert complete
    assert message.context_id == 3
    assert (answer.MessageIDBeingRespondedTo, answer.Status) == (message_id, status)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (sop_class, sop_instance)
    assert bool(answer.ErrorComment) == bool(comment.strip())


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_a_command_or_invalid(encoded: bytes) -> None:
    try:
        read_store_request(read_command(encoded))
    except InvalidMessageError:
        return
    assert len(encoded) >= 8


@pytest.mark.parametrize("missing", [0x0002, 0x0110, 0x0700, 0x0800, 0x1000])
def test_everything_mandatory_is_needed(missing: int) -> None:
    elements = read_command(by_pynetdicom(1, "1.2", "1.3", 2))
    del elements[missing]
    with pytest.raises(InvalidMessageError):
        read_store_request(elements)


def test_a_uid_that_is_none_is_told_and_its_message_is_read() -> None:
    """Devices send such UIDs (pynetdicom issue 769): the image is rejected, and the association goes on."""
    for uid, why in (("1" * 65, "longer than 64"), ("1.2.x", "not made of digits and dots")):
        elements = read_command(by_pynetdicom(1, "1.2", "1.3", 2)) | {0x1000: uid.encode()}
        request = read_store_request(elements)
        assert why in request.fault
        answer = read_command(write_store_response(request, Answer(0xC000, request.fault)))
        assert 0x1000 not in answer
        assert 0x0002 not in answer
        assert answer[0x0902].decode().strip() == request.fault


def test_an_empty_uid_is_missing() -> None:
    elements = read_command(by_pynetdicom(1, "1.2", "1.3", 2)) | {0x1000: b""}
    with pytest.raises(InvalidMessageError):
        read_store_request(elements)
